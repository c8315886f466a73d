//! One connection: TLS if there is any, HTTP/1.1, time-outs for slow readers, and an answer in words to what is no
//! HTTP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tokio_rustls::TlsAcceptor;

use crate::error::Refusal;
use crate::http::line;
use crate::limits::{HEAD, HEAD_FIELDS, HEAD_TIME, WRITE_PAUSE};
use crate::log::Log;
use crate::ready::Phase;

/// The other side of a connection, as its requests carry it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What the requests of a connection go to: the routes, which are told where they come from.
struct Routes {
    inner: TowerToHyperService<Router>,
    peer: Peer,
    log: Log,
}

impl Service<Request<Incoming>> for Routes {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.inner.call(request)
    }
}

/// Serves a connection until one side has had enough.
pub(crate) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    log: Log,
    phase: watch::Receiver<Phase>,
) {
    let routes = Routes { inner: TowerToHyperService::new(router), peer: Peer(peer), log };
    match tls {
        None => talk(socket, routes, phase).await,
        Some(tls) => {
            if let Ok(Ok(socket)) = tokio::time::timeout(HEAD_TIME, tls.accept(socket)).await {
                talk(socket, routes, phase).await;
            }
        }
    }
}

async fn talk<S>(socket: S, service: Routes, mut phase: watch::Receiver<Phase>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (log, peer) = (service.log.clone(), service.peer);
    let socket = Patient { socket, stalled: None, own: Vec::new(), log, peer };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = phase.wait_for(|phase| *phase == Phase::Draining) => {}
    }
    // What runs is finished; then the connection closes.
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// A socket whose other side must read on. It also gives words to the bare answers that the HTTP library makes by
/// itself for what it cannot read.
struct Patient<S> {
    socket: S,
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is written in place of a bare answer.
    own: Vec<u8>,
    log: Log,
    peer: Peer,
}

impl<S: AsyncWrite + Unpin> Patient<S> {
    /// An answer of the library's own: an error without a body. All of ours have one.
    fn in_words(head: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(head).ok()?;
        let status: u16 = text.strip_prefix("HTTP/1.1 4")?.get(..2)?.parse::<u16>().ok()? + 400;
        if !text.contains("\r\ncontent-length: 0\r\n") || !text.ends_with("\r\n\r\n") {
            return None;
        }
        let (what, reason) = match status {
            431 => ("the head of the request is too large", "Request Header Fields Too Large"),
            414 => ("the path is too long", "URI Too Long"),
            413 => ("the body is too large", "Payload Too Large"),
            408 => ("the head of the request took too long", "Request Timeout"),
            _ => ("expected a request of HTTP/1.1", "Bad Request"),
        };
        let body = Refusal::bad(what).json().to_string();
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        Some([head.into_bytes(), body.into_bytes()].concat())
    }

    /// Passes on what a write gave, unless it has waited for too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_PAUSE)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            let written = Pin::new(&mut self.socket).poll_write(cx, &self.own);
            match self.bounded(cx, written) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => drop(self.own.drain(..count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.own.is_empty() {
            match Self::in_words(buf) {
                Some(own) => {
                    line::unread(&this.log, this.peer.0, &own);
                    this.own = own;
                    // It counts as written; the rest of it goes with the flush.
                    return match this.poll_own(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        _ => Poll::Ready(Ok(buf.len())),
                    };
                }
                None => {
                    let written = Pin::new(&mut this.socket).poll_write(cx, buf);
                    return this.bounded(cx, written);
                }
            }
        }
        match this.poll_own(cx) {
            Poll::Ready(Ok(())) => {
                let written = Pin::new(&mut this.socket).poll_write(cx, buf);
                this.bounded(cx, written)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.poll_own(cx) {
            Poll::Ready(Ok(())) => {
                let flushed = Pin::new(&mut this.socket).poll_flush(cx);
                this.bounded(cx, flushed)
            }
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.poll_own(cx) {
            Poll::Ready(Ok(())) => {
                let closed = Pin::new(&mut this.socket).poll_shutdown(cx);
                this.bounded(cx, closed)
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_answers_get_words_and_ours_keep_theirs() {
        let words = |head: &str| Patient::<TcpStream>::in_words(head.as_bytes());
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let text = String::from_utf8(words(bare).unwrap()).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 431 ") && text.ends_with("}}") && text.contains("\"message\""),
            "{text}"
        );
        for own in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n",
            "data: HTTP/1.1 400",
        ] {
            assert_eq!(words(own), None);
        }
    }
}
