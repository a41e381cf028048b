//! Whole groups in one process, on real disks and a network that can be cut.
//!
//! Time is real here, and the machine may be busy: tests assert who won and what holds afterwards, and wait for it with a
//! deadline. They never assert how many milliseconds something took.

mod elections;
mod forming;
mod harness;
mod recovery;
