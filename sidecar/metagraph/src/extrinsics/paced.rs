//! A connection that slows down when it is told to.
//!
//! Public endpoints take one request a second and refuse the others. What they refuse they have not done, so it may be asked
//! again, a submission too. Unlimited nodes never see a pause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use subxt::rpcs::client::{RawRpcFuture, RawRpcSubscription, RawValue, RpcClientT};
use subxt::rpcs::{Error, UserError};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

/// Codes with which nodes and the proxies before them say "too often".
const TOO_OFTEN: [i32; 2] = [-32005, 429];

/// Time between two requests from then on: one a second, and a little for clocks that disagree.
const PACE: Duration = Duration::from_millis(1_050);

/// How often one request is asked again.
const RETRIES: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Paced<C> {
    inner: C,
    /// Whether the other end has ever said "too often".
    slow: AtomicBool,
    /// When the next request may leave.
    next: Mutex<Option<Instant>>,
}

impl<C> Paced<C> {
    pub(super) fn new(inner: C) -> Self {
        Self { inner, slow: AtomicBool::new(false), next: Mutex::new(None) }
    }

    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Waits for a place in the line.
    async fn turn(&self) {
        if !self.is_slow() {
            return;
        }
        // Held while waiting on purpose: those behind are served in their order.
        let mut next = self.next.lock().await;
        if let Some(at) = *next {
            sleep_until(at).await;
        }
        *next = Some(Instant::now() + PACE);
    }

    /// Whether an answer says "too often", which makes all the next ones slow.
    fn too_often<T>(&self, answer: &Result<T, Error>) -> bool {
        let Err(Error::User(UserError { code, .. })) = answer else { return false };
        let too_often = TOO_OFTEN.contains(code);
        if too_often && !self.slow.swap(true, Ordering::Relaxed) {
            debug!("the endpoint limits requests: one a second from here on");
        }
        too_often
    }
}

impl<C: RpcClientT> RpcClientT for Paced<C> {
    fn request_raw<'a>(&'a self, method: &'a str, params: Option<Box<RawValue>>) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(async move {
            for _ in 0..RETRIES {
                self.turn().await;
                let answer = self.inner.request_raw(method, params.clone()).await;
                if !self.too_often(&answer) {
                    return answer;
                }
            }
            self.turn().await;
            self.inner.request_raw(method, params).await
        })
    }

    fn subscribe_raw<'a>(
        &'a self,
        sub: &'a str,
        params: Option<Box<RawValue>>,
        unsub: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        Box::pin(async move {
            for _ in 0..RETRIES {
                self.turn().await;
                let answer = self.inner.subscribe_raw(sub, params.clone(), unsub).await;
                if !self.too_often(&answer) {
                    return answer;
                }
            }
            self.turn().await;
            self.inner.subscribe_raw(sub, params, unsub).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;

    use super::*;

    /// Takes one request a second, and notes when each came.
    #[derive(Default)]
    struct Limited {
        taken: Lock<Vec<Instant>>,
        refused: Lock<u32>,
        unlimited: bool,
    }

    impl RpcClientT for Limited {
        fn request_raw<'a>(&'a self, _: &'a str, _: Option<Box<RawValue>>) -> RawRpcFuture<'a, Box<RawValue>> {
            Box::pin(async move {
                let mut taken = self.taken.lock().unwrap();
                let soon = taken.last().is_some_and(|last| last.elapsed() < Duration::from_secs(1));
                if soon && !self.unlimited {
                    *self.refused.lock().unwrap() += 1;
                    let message = "too many requests".to_owned();
                    return Err(Error::User(UserError { code: -32005, message, data: None }));
                }
                taken.push(Instant::now());
                Ok(RawValue::from_string("1".to_owned()).unwrap())
            })
        }

        fn subscribe_raw<'a>(
            &'a self,
            _: &'a str,
            _: Option<Box<RawValue>>,
            _: &'a str,
        ) -> RawRpcFuture<'a, RawRpcSubscription> {
            Box::pin(async { Err(Error::User(UserError::method_not_found())) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limited_endpoint_gets_one_request_a_second_and_answers_all() {
        let client = Paced::new(Limited::default());
        let all = (0..12).map(|_| client.request_raw("m", None));
        for answer in futures::future::join_all(all).await {
            answer.unwrap();
        }
        assert!(client.is_slow());
        assert_eq!(client.inner.taken.lock().unwrap().len(), 12);
        // The first round met the limit; nobody did after that, but the one right behind it.
        assert!(*client.inner.refused.lock().unwrap() <= 12, "{:?}", client.inner.refused);
        let before = *client.inner.refused.lock().unwrap();
        for _ in 0..5 {
            client.request_raw("m", None).await.unwrap();
        }
        assert_eq!(*client.inner.refused.lock().unwrap(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unlimited_node_is_asked_without_a_pause() {
        let client = Paced::new(Limited { unlimited: true, ..Limited::default() });
        let started = Instant::now();
        for _ in 0..100 {
            client.request_raw("m", None).await.unwrap();
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert!(!client.is_slow());
    }
}
