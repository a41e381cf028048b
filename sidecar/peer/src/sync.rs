//! Locks. In tests of this crate every lock is a point at which shuttle may let another thread go on, so that it explores
//! interleavings of the very code that runs in production.

#[cfg(not(test))]
pub(crate) use parking_lot::{Mutex, RwLock};

#[cfg(test)]
pub(crate) use explored::{Mutex, RwLock, under_shuttle};

#[cfg(test)]
mod explored {
    use std::cell::Cell;

    use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    thread_local! {
        /// Set while shuttle runs this thread. Its threads are coroutines of one real thread, so that this is seen by all.
        static EXPLORING: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs a test under shuttle, in so many random schedules.
    pub(crate) fn under_shuttle(schedules: usize, test: impl Fn() + Send + Sync + 'static) {
        EXPLORING.set(true);
        shuttle::check_random(test, schedules);
        EXPLORING.set(false);
    }

    fn acquire<G>(try_lock: impl Fn() -> Option<G>, lock: impl FnOnce() -> G) -> G {
        if !EXPLORING.get() {
            return lock();
        }
        loop {
            shuttle::thread::yield_now();
            if let Some(guard) = try_lock() {
                return guard;
            }
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            acquire(|| self.0.try_lock(), || self.0.lock())
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(parking_lot::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(parking_lot::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            acquire(|| self.0.try_read(), || self.0.read())
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            acquire(|| self.0.try_write(), || self.0.write())
        }
    }
}
