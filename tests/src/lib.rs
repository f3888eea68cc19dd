//! Whole-pipeline tests of Golden Stick
