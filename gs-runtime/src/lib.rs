//! Fast execution of modules on the processor
