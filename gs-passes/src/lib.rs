//! Pass manager, rule engine and general passes
