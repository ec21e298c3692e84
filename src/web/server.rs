//! The listener: connections in, bounded in number and time, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::guard::{Guard, read_secret};
use super::router::{App, router};
use super::{Bounds, Credentials, TlsFiles, WebOptions, WebState};

/// Certificates are looked at this often, in case they were renewed.
const TLS_CHECK: Duration = Duration::from_secs(60);

/// How long to wait after a failed `accept`, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The web cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Another program listens there.
    #[error(
        "cannot listen on {address}: the port is in use; stop the other program, or set \
         listen.address"
    )]
    PortInUse {
        /// The address, as configured.
        address: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; check listen.address")]
    Bind {
        /// The address, as configured.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Others than this machine can reach the listener, and nothing would tell callers apart.
    #[error(
        "listening on {address} needs credentials, since others can reach it: set \
         auth.bearer_token_file, or auth.user and auth.password_file, or listen on 127.0.0.1"
    )]
    CredentialsNeeded {
        /// The address.
        address: SocketAddr,
    },
    /// The file with the token or the password cannot be used.
    #[error("the secret of [auth] cannot be used: {problem}")]
    Credentials {
        /// Which file, and why.
        problem: String,
    },
    /// Certificate or key cannot be used.
    #[error("TLS cannot be served with {}: {problem}", .file.display())]
    Tls {
        /// The file at fault.
        file: PathBuf,
        /// Why.
        problem: String,
    },
    /// The listener itself failed.
    #[error("the listener failed")]
    Listener {
        /// Why.
        source: io::Error,
    },
}

/// Begins to listen on `host:port`. Port 0 takes a free one.
///
/// # Errors
///
/// [`WebError::PortInUse`] or [`WebError::Bind`].
pub async fn bind(address: &str) -> Result<TcpListener, WebError> {
    TcpListener::bind(address).await.map_err(|source| {
        let address = address.to_owned();
        if source.kind() == io::ErrorKind::AddrInUse {
            WebError::PortInUse { address }
        } else {
            WebError::Bind { address, source }
        }
    })
}

/// Serves page and API until `shutdown`, then lets answers under way finish for a moment.
///
/// # Errors
///
/// Before the first connection only: [`WebError::CredentialsNeeded`], [`WebError::Credentials`],
/// [`WebError::Tls`] or [`WebError::Listener`].
pub async fn serve(
    listener: TcpListener,
    options: WebOptions,
    state: WebState,
    shutdown: CancellationToken,
) -> Result<(), WebError> {
    let address = listener
        .local_addr()
        .map_err(|source| WebError::Listener { source })?;
    let guard = Guard::new(&options, address.ip());
    if !guard.can_let_through() {
        return Err(WebError::CredentialsNeeded { address });
    }
    check_secret(options.credentials.as_ref()).await?;
    let mut tls = match options.tls.clone() {
        Some(files) => Some(Tls::load(files).await?),
        None => None,
    };
    let bounds = options.bounds;
    let app = Arc::new(App::new(state, bounds, options.tls, shutdown.clone()));
    let router = router(&app, &guard);
    let connections = Arc::new(Semaphore::new(bounds.connections));
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(note_history(app.clone(), shutdown.clone()));
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!(address = %address, url = %format_args!("{scheme}://{address}/"), "listening");

    let mut checks = tokio::time::interval(TLS_CHECK);
    loop {
        let permit = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            _ = checks.tick(), if tls.is_some() => {
                if let Some(tls) = &mut tls {
                    tls.reload().await;
                }
                continue;
            }
            permit = connections.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = tls.as_ref().map(|tls| tls.acceptor.clone());
        let (router, watcher) = (router.clone(), graceful.watcher());
        tasks.spawn(async move {
            connection(stream, acceptor, router, bounds, watcher).await;
            drop(permit);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(bounds.shutdown_timeout) => {
            tracing::info!("answers under way were cut off at shutdown");
        }
    }
    tasks.shutdown().await;
    Ok(())
}

async fn check_secret(credentials: Option<&Credentials>) -> Result<(), WebError> {
    let file = match credentials {
        None => return Ok(()),
        Some(Credentials::Bearer { token_file }) => token_file,
        Some(Credentials::Basic { password_file, .. }) => password_file,
    };
    match read_secret(file).await {
        Ok(_) => Ok(()),
        Err(problem) => Err(WebError::Credentials { problem }),
    }
}

/// Notes the risks of each snapshot.
async fn note_history(app: Arc<App>, shutdown: CancellationToken) {
    let mut snapshots = app.cache.changes();
    loop {
        app.history.note(&app.cache.snapshot());
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    bounds: Bounds,
    watcher: Watcher,
) {
    // Small events should not wait for more; where it fails, they are only later.
    let _ = stream.set_nodelay(true);
    let stream = WriteBounded::new(stream, bounds.write_timeout);
    match acceptor {
        None => http(stream, router, bounds, watcher).await,
        Some(acceptor) => {
            let shaken = tokio::time::timeout(bounds.header_timeout, acceptor.accept(stream)).await;
            match shaken {
                Ok(Ok(stream)) => http(stream, router, bounds, watcher).await,
                Ok(Err(error)) => tracing::debug!(error = %error, "no TLS connection"),
                Err(_) => tracing::debug!("no TLS connection in time"),
            }
        }
    }
}

async fn http<S>(stream: S, router: Router, bounds: Bounds, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(bounds.headers.max(8 << 10))
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

/// Certificate and key, and when they were last read.
struct Tls {
    files: TlsFiles,
    content: (Vec<u8>, Vec<u8>),
    acceptor: TlsAcceptor,
}

impl Tls {
    async fn load(files: TlsFiles) -> Result<Self, WebError> {
        let content = read_tls(&files).await?;
        let acceptor = acceptor(&files, &content)?;
        Ok(Self {
            files,
            content,
            acceptor,
        })
    }

    /// Takes a renewed certificate; a broken one is reported and the old one kept.
    async fn reload(&mut self) {
        let renewed = match read_tls(&self.files).await {
            Ok(content) if content == self.content => return,
            Ok(content) => acceptor(&self.files, &content).map(|acceptor| (acceptor, content)),
            Err(error) => Err(error),
        };
        match renewed {
            Ok((acceptor, content)) => {
                self.acceptor = acceptor;
                self.content = content;
                tracing::info!("TLS certificate renewed");
            }
            Err(error) => {
                tracing::warn!(error = %error, "TLS certificate not renewed, the old one stays");
            }
        }
    }
}

async fn read_tls(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>), WebError> {
    let read = async |file: &PathBuf| {
        tokio::fs::read(file).await.map_err(|error| WebError::Tls {
            file: file.clone(),
            problem: error.to_string(),
        })
    };
    Ok((read(&files.cert_file).await?, read(&files.key_file).await?))
}

fn acceptor(files: &TlsFiles, content: &(Vec<u8>, Vec<u8>)) -> Result<TlsAcceptor, WebError> {
    let fault = |file: &PathBuf, problem: String| WebError::Tls {
        file: file.clone(),
        problem,
    };
    let (cert, key) = content;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|error| fault(&files.cert_file, format!("no PEM certificate: {error}")))?;
    if chain.is_empty() {
        let problem = "no PEM certificate in it".to_owned();
        return Err(fault(&files.cert_file, problem));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| fault(&files.key_file, format!("no PEM private key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&files.cert_file, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| fault(&files.cert_file, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection that fails when its other side takes no byte for too long: a laptop that went to
/// sleep with the page open must not hold a stream for a quarter of an hour.
struct WriteBounded {
    stream: TcpStream,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl WriteBounded {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            stalled: None,
        }
    }

    fn bound<T>(
        &mut self,
        ctx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let limit = self.limit;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match stalled.as_mut().poll(ctx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the other side takes no data",
            ))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for WriteBounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(ctx, buffer)
    }
}

impl AsyncWrite for WriteBounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(ctx, buffer);
        self.bound(ctx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(ctx);
        self.bound(ctx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(ctx);
        self.bound(ctx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(ctx, buffers);
        self.bound(ctx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
