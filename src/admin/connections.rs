//! Connections of the admin interface: accepted in bounded number, driven by hyper, closed when they stall.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::limits;

/// How long connections get to finish when the server stops, and then threads that read for them.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// How long peers may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// To send a request's head, the wait for it on an idle connection included.
    pub(super) head: Duration,
    /// To take anything of an answer.
    pub(super) stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_millis(limits::ADMIN_HEAD_MS),
            stall: Duration::from_millis(limits::ADMIN_STALL_MS),
        }
    }
}

/// What answers requests: one router until the server is ready, and another one from then on.
#[derive(Clone)]
pub(super) struct Door {
    starting: Router,
    ready: Arc<OnceLock<Router>>,
}

impl Door {
    pub(super) fn new(starting: Router, ready: Arc<OnceLock<Router>>) -> Self {
        Self { starting, ready }
    }
}

impl Service<Request<Incoming>> for Door {
    type Response = Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let router = self.ready.get().unwrap_or(&self.starting);
        TowerToHyperService::new(router.clone()).call(request)
    }
}

/// Accepts and serves until told to stop; then lets connections finish for [`STOP_TIMEOUT`].
pub(super) async fn serve(
    listener: TcpListener,
    door: Door,
    patience: Patience,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The place comes before the connection: those beyond the maximum wait in the kernel and cost nothing here.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            Some(_finished) = connections.join_next() => {}
            accepted = accepted => match accepted {
                Ok((stream, place)) => {
                    let (door, stopping) = (door.clone(), stopping.clone());
                    connections.spawn(async move {
                        connection(stream, door, patience, stopping).await;
                        drop(place);
                    });
                }
                // Out of file descriptors, or the peer is gone already. Neither ends the interface.
                Err(error) => {
                    tracing::warn!(%error, "the admin interface could not accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let _in_time = timeout(STOP_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn connection(stream: TcpStream, door: Door, patience: Patience, mut stopping: watch::Receiver<bool>) {
    // Latency only; a socket that refuses it works.
    drop(stream.set_nodelay(true));
    let stream = Unstalled::new(stream, patience.stall);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(limits::ADMIN_HEAD_BYTES);
    let served = http.serve_connection(TokioIo::new(stream), door);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        result = served.as_mut() => Some(result),
        () = stopped(&mut stopping) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// Returns when the interface is told to stop, or nobody is left to tell it.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}

/// A stream whose writes fail once the peer has taken nothing for a time: a reader that stalls must not hold its place
/// forever.
struct Unstalled {
    stream: TcpStream,
    patience: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, deadline: None }
    }

    /// What the stream's write came to, or an error when it has come to nothing for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let patience = self.patience;
        let deadline =
            self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }
}

impl AsyncRead for Unstalled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
