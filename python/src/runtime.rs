//! One tokio runtime per process, and how a Python thread waits for it.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

/// How long Ctrl-C may go unnoticed.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);

/// Process id and runtime. A forked child has none of the parent's threads, so it gets a runtime of its own; the parent's
/// is leaked there, because joining threads that do not exist never ends.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

fn runtime() -> PyResult<&'static Runtime> {
    let process = std::process::id();
    let mut slot = RUNTIME.lock();
    match *slot {
        Some((owner, runtime)) if owner == process => Ok(runtime),
        _ => {
            // One thread: it only keeps connections alive, work is done on the threads that wait.
            let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("mycelium").enable_all().build()?;
            let runtime = &*Box::leak(Box::new(runtime));
            *slot = Some((process, runtime));
            Ok(runtime)
        }
    }
}

/// Runs `work` to its end on this thread without holding the interpreter.
///
/// # Errors
/// What a signal handler raised, such as `KeyboardInterrupt`; the work is dropped then.
pub(crate) fn wait<T, F>(py: Python<'_>, work: impl FnOnce() -> F + Send) -> PyResult<T>
where
    T: Send,
    F: Future<Output = T>,
{
    py.detach(|| {
        runtime()?.block_on(async {
            let mut work = pin!(work());
            loop {
                if let Ok(done) = tokio::time::timeout(SIGNAL_CHECK, &mut work).await {
                    return Ok(done);
                }
                #[expect(clippy::redundant_closure_for_method_calls, reason = "the bare method fixes the lifetime")]
                Python::attach(|py| py.check_signals())?;
            }
        })
    })
}
