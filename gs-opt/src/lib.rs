//! The command-line tool of Golden Stick
