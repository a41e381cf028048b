//! Connections of strangers, within limits. Stricter than the API's own: everybody can come here.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::gate::Gate;

/// Connections at the same time. A validator holds one or two to each miner, and 256 validators are a full subnet.
const CONNECTIONS_MAX: usize = 2048;

/// Connections from one address: several validators may share one, strangers may not take all.
const CONNECTIONS_PER_IP: usize = 128;

/// Time for the head of a request, the wait for the next one on a kept connection included.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);

/// Largest head of a request, and what is read ahead of its body.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers of one request.
const HEADERS_MAX: usize = 64;

/// Time for requests under way when the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// Pause after the listener failed to accept, which it does while there are no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, then lets requests that are under way finish.
pub(crate) async fn serve(listener: TcpListener, gate: Arc<Gate>, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let by_ip = Arc::new(ByIp::default());
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, stream, ip) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => match next {
                (permit, Ok((stream, address))) => (permit, stream, address.ip().to_canonical()),
                (_, Err(error)) => {
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(place) = by_ip.clone().enter(ip) else {
            debug!(%ip, "too many connections from one address");
            continue;
        };
        let gate = gate.clone();
        let service = service_fn(move |request| {
            let gate = gate.clone();
            async move { Ok::<_, Infallible>(gate.answer(request, ip).await) }.boxed()
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        // `graceful` awaits it.
        tokio::spawn(async move {
            let _places = (permit, place);
            if let Err(error) = connection.await {
                debug!(%ip, %error, "connection ended badly");
            }
        });
    }
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        warn!("requests were cut off at the end");
    }
}

/// How many connections there are from where.
#[derive(Debug, Default)]
struct ByIp(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address, as long as this lives.
#[derive(Debug)]
struct Place {
    all: Arc<ByIp>,
    ip: IpAddr,
}

impl ByIp {
    fn enter(self: Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock();
        let count = counts.entry(ip).or_default();
        if *count >= CONNECTIONS_PER_IP {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { all: self, ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock();
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_connections_and_gives_them_back() {
        let all = Arc::new(ByIp::default());
        let ip = "10.0.0.1".parse().unwrap();
        let mut places: Vec<Place> = (0..CONNECTIONS_PER_IP).map(|_| all.clone().enter(ip).unwrap()).collect();
        assert!(all.clone().enter(ip).is_none());
        assert!(all.clone().enter("10.0.0.2".parse().unwrap()).is_some());
        places.pop();
        assert!(all.clone().enter(ip).is_some());
        drop(places);
        assert!(all.0.lock().is_empty());
    }
}
