//! The reference evaluator: clear loops, the oracle for everything else
