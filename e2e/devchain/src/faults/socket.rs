//! A socket that can be dropped, frozen or cut from outside.

use std::io::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Faults;

const ALIVE: u8 = 0;
const FROZEN: u8 = 1;
const CLOSED: u8 = 2;

/// No end in sight.
const UNCUT: u64 = u64::MAX;

/// What is known of an accepted socket, shared by its stream and those who answer on it.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    /// Address of the client.
    pub(crate) peer: IpAddr,
    state: AtomicU8,
    /// Bytes that may still be sent before it is closed.
    cut: AtomicU64,
    replies: AtomicU32,
    /// Who waits for something to read: it must hear of the end of a socket on which nothing happens.
    reader: AtomicWaker,
    faults: Weak<Faults>,
}

impl Connection {
    pub(super) fn new(id: u64, peer: IpAddr, faults: Weak<Faults>) -> Self {
        Self {
            id,
            peer,
            state: AtomicU8::new(ALIVE),
            cut: AtomicU64::new(UNCUT),
            replies: AtomicU32::new(0),
            reader: AtomicWaker::new(),
            faults,
        }
    }

    /// A request was answered.
    pub(crate) fn replied(&self) {
        self.replies.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn replies(&self) -> u32 {
        self.replies.load(Ordering::Relaxed)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state.load(Ordering::Acquire) != ALIVE
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// Closes it without a goodbye.
    pub(super) fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
        self.reader.wake();
    }

    /// Leaves it open, but deaf and dumb.
    pub(super) fn freeze(&self) {
        self.state.store(FROZEN, Ordering::Release);
        self.reader.wake();
    }

    /// Closes it as soon as so many more bytes were sent.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.cut.store(bytes, Ordering::Release);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(faults) = self.faults.upgrade() {
            faults.forget(self.id);
        }
    }
}

/// A socket whose bytes pass only while its [`Connection`] is alive.
#[derive(Debug)]
pub(crate) struct FaultyStream {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl FaultyStream {
    pub(crate) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }

    fn is_closed(&self) -> bool {
        self.connection.state() == CLOSED
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::ConnectionReset, "closed by an injected fault")
}

impl AsyncRead for FaultyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.connection.reader.register(cx.waker());
        match self.connection.state() {
            CLOSED => Poll::Ready(Err(closed())),
            FROZEN => loop {
                // Only the end of the stream is noticed: what the client says is thrown away.
                let mut waste = [0; 4096];
                let mut waste = ReadBuf::new(&mut waste);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut waste))?;
                if waste.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
            },
            _ => Pin::new(&mut self.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        match self.connection.state() {
            CLOSED => return Poll::Ready(Err(closed())),
            FROZEN => return Poll::Ready(Ok(buf.len())),
            _ => {}
        }
        let left = self.connection.cut.load(Ordering::Acquire);
        if left == UNCUT {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let sent = if room == 0 { 0 } else { ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..room]))? };
        let left = left.saturating_sub(sent as u64);
        self.connection.cut_after(left);
        if left == 0 {
            self.connection.close();
            return Poll::Ready(Err(closed()));
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.is_closed() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.connection.state() {
            // Whoever is half-open does not say that it hangs up.
            FROZEN => Poll::Ready(Ok(())),
            _ => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}
