//! Fuzz targets that run as tests: first over a corpus that is committed, then over mutations of it and noise, made by
//! proptest, for a bounded time on the stable compiler. `FUZZ_SECONDS` lengthens it. An input that fails is shrunk and
//! printed in hex; put its bytes into the corpus, where it is replayed for good.
//!
//! cargo-fuzz was not chosen: it needs a nightly compiler for its instrumentation and a build of its own of everything that
//! is fuzzed, a FRAME runtime among it. bolero would run on stable, but holds back crates that FRAME's macros need. Mutating
//! a corpus of what clients really send reaches past the decoders, which noise does not; a test of each corpus holds that.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a target that cannot go on stops and says so"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestError, TestRunner};

/// How one crate's targets are run.
#[derive(Debug, Clone, Copy)]
pub struct Fuzz {
    /// Folder of the crate: the seeds of a target are the files in its `fuzz/corpus/TARGET`.
    pub manifest_dir: &'static str,
    /// How long mutations are tried, target by target, where `FUZZ_SECONDS` does not say.
    pub seconds: u64,
    /// Bytes of an input.
    pub max_input: usize,
    /// Attempts to make a failing input smaller.
    pub max_shrinks: u32,
}

impl Fuzz {
    /// The seeds of a target, in the order of their files' names.
    ///
    /// # Panics
    /// There are none.
    pub fn corpus(&self, name: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(self.manifest_dir).join("fuzz/corpus").join(name);
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} is empty", dir.display());
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// Runs a target for a bounded time. What it does with an input must not panic, abort or hang.
    ///
    /// # Panics
    /// The target did; the message has the input.
    pub fn run(&self, name: &str, target: fn(&[u8])) {
        let seeds = self.corpus(name);
        for seed in &seeds {
            // Captured by the test harness, and shown when the target fails on it.
            println!("corpus: 0x{}", hex::encode(seed));
            target(seed);
        }
        let max = self.max_input;
        let edits = prop::collection::vec(edit(), 1..12);
        let mutated = (prop::sample::select(seeds), edits).prop_map(move |(mut bytes, edits)| {
            for edit in &edits {
                edit.apply(&mut bytes);
                bytes.truncate(max);
            }
            bytes
        });
        let noise = prop::collection::vec(any::<u8>(), 0..max);
        let input = prop_oneof![4 => mutated, 1 => noise];
        let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(self.seconds);
        let until = Instant::now() + Duration::from_secs(seconds);
        // As many as are tried before the clock is looked at again.
        let config =
            Config { cases: 32, failure_persistence: None, max_shrink_iters: self.max_shrinks, ..Config::default() };
        while Instant::now() < until {
            // A runner counts its cases over all its runs, and tries no more than so many.
            let outcome = TestRunner::new(config.clone()).run(&input, |bytes| {
                target(&bytes);
                Ok(())
            });
            match outcome {
                Ok(()) => {}
                Err(TestError::Fail(why, bytes)) => panic!("{name} fails on 0x{}: {why}", hex::encode(bytes)),
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
}

/// A test of each target, by the target's name.
#[macro_export]
macro_rules! targets {
    ($fuzz:ident: $($name:ident)*) => {
        #[cfg(test)]
        mod bounded {
            $(
                #[test]
                fn $name() {
                    super::$fuzz.run(stringify!($name), super::$name);
                }
            )*
        }
    };
}

/// One change of an input.
#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            bytes.push(0);
        }
        match self {
            Self::Set(at, value) => *at.get_mut(bytes) = *value,
            Self::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << (bit % 8),
            Self::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..bytes.len().min(at + count));
            }
            Self::Repeat(at, count) => {
                let at = at.index(bytes.len());
                let piece = bytes[at..bytes.len().min(at + count)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, value)| Edit::Set(at, value)),
        (at(), any::<u8>()).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (at(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, new)| Edit::Insert(at, new)),
        (at(), 1usize..64).prop_map(|(at, count)| Edit::Remove(at, count)),
        (at(), 1usize..64).prop_map(|(at, count)| Edit::Repeat(at, count)),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// This harness on a corpus of its own.
    const FUZZ: Fuzz = Fuzz { manifest_dir: env!("CARGO_MANIFEST_DIR"), seconds: 60, max_input: 64, max_shrinks: 512 };

    #[test]
    fn what_a_target_dies_of_is_found_and_told() {
        let panic =
            std::panic::catch_unwind(|| FUZZ.run("words", |bytes| assert!(!bytes.starts_with(b"wo.ds")))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.starts_with("words fails on 0x776f2e6473"), "{text}");
    }

    #[test]
    fn inputs_are_as_long_as_is_allowed_and_no_longer() {
        static LONGEST: AtomicUsize = AtomicUsize::new(0);
        let brief = Fuzz { seconds: 1, ..FUZZ };
        brief.run("words", |bytes| {
            LONGEST.fetch_max(bytes.len(), Ordering::Relaxed);
        });
        assert!((60..=64).contains(&LONGEST.load(Ordering::Relaxed)), "{LONGEST:?}");
    }
}
