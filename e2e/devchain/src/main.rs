//! Placeholder until the first build of the dependencies is through.
fn main() {}
