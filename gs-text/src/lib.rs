//! Text forms: .gsir modules and .gsr rules, spans and diagnostics
