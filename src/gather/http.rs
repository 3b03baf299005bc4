//! Asking vendors over HTTPS: a small client that follows redirects, keeps limits of time, and says honestly what went wrong. A mirror
//! that is a folder of this host answers as a server would.
//!
//! In: URLs, limits, this host's certificate authorities and proxy variables. Out: short texts whole, long bodies piece by piece.
//! Absent: what is asked for and why, retries of downloads, the environment (a `Surroundings` is read at the edge). Everything is a future: who
//! stops waiting stops the transfer.

use super::env;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, HOST, HeaderMap, HeaderValue, LOCATION, PROXY_AUTHENTICATE, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

const REDIRECTS: usize = 8;
const FILE_CHUNK: usize = 256 << 10;
/// Manifests and release descriptions; the longest known has 200 KB.
const TEXT_LIMIT: usize = 8 << 20;

/// How long, how often, how much. The defaults are the ones in use; tests shrink them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Name, TCP, TLS.
    pub connect: Duration,
    /// One text request, from the connection to its last byte.
    pub text: Duration,
    pub text_tries: u32,
    /// Between two tries.
    pub pause: Duration,
    /// A whole download with all its tries.
    pub download: Duration,
    pub download_tries: u32,
    /// Without a single byte.
    pub idle: Duration,
    /// Ranges at once.
    pub ranges: u64,
    /// Bytes of the smallest range.
    pub least_range: u64,
    /// Running a program that has no checksum.
    pub probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            text: Duration::from_secs(30),
            text_tries: 2,
            pause: Duration::from_millis(500),
            download: Duration::from_secs(300),
            download_tries: 3,
            idle: Duration::from_secs(30),
            ranges: 8,
            least_range: 8 << 20,
            probe: Duration::from_secs(20),
        }
    }
}

/// What of this host a request depends on.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// PEM file in the place of this host's authorities.
    pub authorities: Option<PathBuf>,
    pub https_proxy: Option<String>,
    pub http_proxy: Option<String>,
    pub no_proxy: String,
}

impl Surroundings {
    /// `SSL_CERT_FILE`, `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`; proxies also in lower case, which wins.
    pub fn from_env(lookup: impl Fn(&str) -> Option<OsString>) -> Surroundings {
        let text = |name: &str| lookup(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
        let either = |name: &str| text(&name.to_lowercase()).or_else(|| text(name));
        Surroundings {
            authorities: text("SSL_CERT_FILE").map(PathBuf::from),
            https_proxy: either("HTTPS_PROXY").or_else(|| either("ALL_PROXY")),
            http_proxy: either("HTTP_PROXY").or_else(|| either("ALL_PROXY")),
            no_proxy: either("NO_PROXY").unwrap_or_default(),
        }
    }

    fn proxy(&self, https: bool, host: &str) -> Option<&str> {
        let direct = |entry: &str| {
            let entry = entry.trim().trim_start_matches("*.").trim_start_matches('.');
            let entry = entry.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(entry, |(name, _)| name);
            entry == "*" || (!entry.is_empty() && (host == entry || host.ends_with(&format!(".{entry}"))))
        };
        let proxy = if https { &self.https_proxy } else { &self.http_proxy };
        proxy.as_deref().filter(|_| !self.no_proxy.split(',').any(direct))
    }
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody there, or somebody who cannot prove who he is.
    Connect(String),
    /// No connection, no answer or no further byte in time.
    Slow(&'static str),
    Status(u16),
    /// The connection broke, or the answer ended early.
    Broken(String),
    /// An answer, but of no use.
    Odd(String),
}

impl Trouble {
    /// May another try help? A host that does not answer at all rarely does half a second later.
    pub fn passes(&self) -> bool {
        match self {
            Trouble::Status(code) => matches!(code, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Trouble::Broken(_) => true,
            Trouble::Slow(what) => *what != NO_CONNECTION,
            Trouble::Connect(_) | Trouble::Odd(_) => false,
        }
    }
}

const NO_CONNECTION: &str = "no connection";

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Connect(text) | Trouble::Broken(text) | Trouble::Odd(text) => f.write_str(text),
            Trouble::Slow(what) => write!(f, "{what} in time"),
            Trouble::Status(code) => {
                let word = StatusCode::from_u16(*code).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
                write!(f, "the server answers {code} {word}")
            }
        }
    }
}

pub struct Http {
    pub limits: Limits,
    /// The only ones that `file://` URLs may lead into.
    pub folders: Vec<PathBuf>,
    user_agent: String,
    surroundings: Surroundings,
    /// Reading the authorities takes longer than a plan without changes, so it waits for the first request.
    tls: OnceCell<Arc<rustls::ClientConfig>>,
}

/// Head and the body to come.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// Where redirects led to.
    pub url: String,
    body: Body,
    idle: Duration,
}

enum Body {
    Net(Incoming),
    /// So many bytes from where it stands.
    File(tokio::io::Take<tokio::fs::File>),
}

impl Reply {
    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Trouble> {
        let body = match &mut self.body {
            Body::Net(body) => body,
            Body::File(file) => {
                let mut chunk = Vec::with_capacity(FILE_CHUNK);
                let read = file.read_buf(&mut chunk).await.map_err(|error| Trouble::Odd(error.to_string()))?;
                return Ok((read > 0).then(|| chunk.into()));
            }
        };
        loop {
            let frame = timeout(self.idle, body.frame()).await.map_err(|_| Trouble::Slow("no further byte"))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Http {
    pub fn new(user_agent: String, surroundings: Surroundings, limits: Limits) -> Http {
        Http { limits, folders: Vec::new(), user_agent, surroundings, tls: OnceCell::new() }
    }

    pub fn from_env(version: &str) -> Http {
        Http::new(format!("jackin/{version}"), Surroundings::from_env(env::variable), Limits::default())
    }

    /// A short answer, whole. Tried again when that may help.
    pub async fn text(&self, url: &str, token: Option<&SecretString>) -> Result<String, Trouble> {
        let mut tried = 0;
        loop {
            tried += 1;
            let once = timeout(self.limits.text, self.text_once(url, token)).await.unwrap_or(Err(Trouble::Slow("no whole answer")));
            match once {
                Err(trouble) if trouble.passes() && tried < self.limits.text_tries => tokio::time::sleep(self.limits.pause).await,
                result => return result,
            }
        }
    }

    async fn text_once(&self, url: &str, token: Option<&SecretString>) -> Result<String, Trouble> {
        let mut reply = self.get(url, token, None).await?;
        if reply.status != 200 {
            return Err(Trouble::Status(reply.status));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > TEXT_LIMIT {
                return Err(Trouble::Odd("the answer is far too long".to_owned()));
            }
        }
        String::from_utf8(bytes).map_err(|_| Trouble::Odd("the answer is no text".to_owned()))
    }

    /// `range` is first and last byte. Follows redirects; the token stays with the host it is for.
    pub async fn get(&self, url: &str, token: Option<&SecretString>, range: Option<(u64, u64)>) -> Result<Reply, Trouble> {
        // Only what was asked for may be a file, not what it redirects to.
        if let Some(path) = url.strip_prefix("file://") {
            return self.file(url, Path::new(path), range).await;
        }
        let mut url = url.to_owned();
        let mut token = token;
        for _ in 0..REDIRECTS {
            let uri: Uri = url.parse().map_err(|_| Trouble::Odd(format!("`{url}` is no URL")))?;
            let response = self.send(&uri, token, range).await?;
            let status = response.status().as_u16();
            let Some(location) = response.headers().get(LOCATION).filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)) else {
                let (head, body) = response.into_parts();
                return Ok(Reply { status, headers: head.headers, url, body: Body::Net(body), idle: self.limits.idle });
            };
            let to = location.to_str().map_err(|_| Trouble::Odd("a redirect leads nowhere".to_owned()))?;
            let next = resolve(&uri, to);
            let to: Uri = next.parse().map_err(|_| Trouble::Odd("a redirect leads nowhere".to_owned()))?;
            if uri.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
                return Err(Trouble::Odd(format!("it redirects to `{next}`, which is not encrypted")));
            }
            if to.authority() != uri.authority() {
                token = None;
            }
            url = next;
        }
        Err(Trouble::Odd("it redirects in a circle".to_owned()))
    }

    /// A file of a mirror, as the mirror's server would give it out.
    async fn file(&self, url: &str, path: &Path, range: Option<(u64, u64)>) -> Result<Reply, Trouble> {
        let odd = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::Odd("there is no such file".to_owned()),
            _ => Trouble::Odd(error.to_string()),
        };
        let outside = || Trouble::Odd("it does not lie in a mirror's folder".to_owned());
        // Links inside a mirror are its owner's; none leads out of it, nor does a `..` of an answer.
        let named: Vec<_> = self.folders.iter().filter(|folder| path.starts_with(folder)).collect();
        if named.is_empty() {
            return Err(outside());
        }
        let path = tokio::fs::canonicalize(path).await.map_err(odd)?;
        let mut inside = false;
        for folder in named {
            inside |= path.starts_with(tokio::fs::canonicalize(folder).await.map_err(odd)?);
        }
        if !inside {
            return Err(outside());
        }
        let found = tokio::fs::metadata(&path).await.map_err(odd)?;
        if !found.is_file() {
            return Err(Trouble::Odd("it is no file".to_owned()));
        }
        let (mut file, length) = (tokio::fs::File::open(&path).await.map_err(odd)?, found.len());
        let mut headers = HeaderMap::new();
        let (status, first, end) = match range {
            Some((first, last)) if first < length => {
                let last = last.min(length - 1);
                headers.insert(CONTENT_RANGE, header(&format!("bytes {first}-{last}/{length}")));
                (206, first, last + 1)
            }
            _ => (200, 0, length),
        };
        headers.insert(CONTENT_LENGTH, (end - first).into());
        file.seek(io::SeekFrom::Start(first)).await.map_err(odd)?;
        Ok(Reply { status, headers, url: url.to_owned(), body: Body::File(file.take(end - first)), idle: self.limits.idle })
    }

    async fn send(&self, uri: &Uri, token: Option<&SecretString>, range: Option<(u64, u64)>) -> Result<hyper::Response<Incoming>, Trouble> {
        tracing::debug!(host = uri.host(), ?range, "http get");
        let host = uri.host().ok_or_else(|| Trouble::Odd(format!("`{uri}` names no host")))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Trouble::Odd(format!("`{uri}` is neither http nor https"))),
        };
        let proxy = self.surroundings.proxy(https, host);
        let connecting = self.connect(https, host, uri.port_u16().unwrap_or(if https { 443 } else { 80 }), proxy);
        let stream = within(self.limits.connect, NO_CONNECTION, connecting).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Ends with the response that it carries.
        tokio::spawn(connection);
        // A proxy for plain HTTP is told the whole URL.
        let target = match (https, proxy) {
            (false, Some(_)) => uri.to_string(),
            _ => uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        };
        let authority = uri.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default()).unwrap_or_default();
        let mut request = Request::get(target).header(HOST, authority).header(USER_AGENT, &self.user_agent);
        if let Some((first, last)) = range {
            request = request.header("range", format!("bytes={first}-{last}"));
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .map_err(|_| Trouble::Odd("the token for it holds a line break".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| Trouble::Odd(error.to_string()))?;
        within(self.limits.idle, "no answer", async { sender.send_request(request).await.map_err(|error| broken(&error)) }).await
    }

    async fn connect(&self, https: bool, host: &str, port: u16, proxy: Option<&str>) -> Result<Box<dyn Stream>, Trouble> {
        let name = host.trim_matches(['[', ']']);
        let tcp = match proxy {
            None => dial(name, port).await?,
            Some(proxy) => through(proxy, name, port, https).await?,
        };
        if !https {
            return Ok(Box::new(tcp));
        }
        let config = self.tls.get_or_try_init(|| self.load_tls()).await?.clone();
        let server = ServerName::try_from(name.to_owned()).map_err(|_| Trouble::Odd(format!("`{host}` is no host name")))?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(server, tcp).await.map_err(|error| {
            let by = if error.to_string().contains("UnknownIssuer") { "; set SSL_CERT_FILE to the authority it is signed by" } else { "" };
            Trouble::Connect(format!("{host} cannot be trusted: {error}{by}"))
        })?;
        Ok(Box::new(stream))
    }

    async fn load_tls(&self) -> Result<Arc<rustls::ClientConfig>, Trouble> {
        let file = self.surroundings.authorities.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let mut roots = rustls::RootCertStore::empty();
            let shown = match &file {
                Some(file) => {
                    let pem = std::fs::read(file).map_err(|error| format!("SSL_CERT_FILE, {}: {error}", file.display()))?;
                    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
                    file.display().to_string()
                }
                None => {
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                    "this host".to_owned()
                }
            };
            if roots.is_empty() {
                return Err(format!("{shown} has no certificate authorities; set SSL_CERT_FILE to a PEM file of them"));
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            Ok(Arc::new(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth()))
        });
        loading.await.expect("BUG: reading certificates does not panic").map_err(Trouble::Connect)
    }
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("BUG: digits")
}

async fn within<T>(limit: Duration, what: &'static str, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    timeout(limit, work).await.unwrap_or(Err(Trouble::Slow(what)))
}

/// Each address in turn, so that one family that leads nowhere does not use up the time of the other.
async fn dial(host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let failed = |error: &io::Error| Trouble::Connect(format!("no connection to {host}:{port}: {error}"));
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(|error| failed(&error))?.collect();
    let mut trouble = Trouble::Connect(format!("{host} has no address"));
    for (tried, address) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(address);
        let last = tried + 1 == addresses.len();
        let connected =
            if last { connecting.await } else { timeout(Duration::from_secs(4), connecting).await.unwrap_or_else(|e| Err(e.into())) };
        match connected {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => trouble = failed(&error),
        }
    }
    Err(trouble)
}

/// A tunnel for HTTPS; for plain HTTP the proxy itself.
async fn through(proxy: &str, host: &str, port: u16, tunnel: bool) -> Result<TcpStream, Trouble> {
    let shown = proxy.rsplit('@').next().unwrap_or_default();
    let odd = |why: &str| Trouble::Odd(format!("the proxy `{shown}` cannot be used: {why}"));
    let uri: Uri = if proxy.contains("://") { proxy.parse() } else { format!("http://{proxy}").parse() }.map_err(|_| odd("no URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(odd("only http:// proxies are"));
    }
    if proxy.contains('@') {
        return Err(odd("it wants a password"));
    }
    let mut stream = dial(uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80)).await?;
    if !tunnel {
        return Ok(stream);
    }
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let failed = |error: io::Error| Trouble::Connect(format!("no connection through the proxy {shown}: {error}"));
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\n{HOST}: {target}\r\n\r\n").as_bytes()).await.map_err(failed)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 16 << 10 {
            return Err(odd("it talks without end"));
        }
        head.push(stream.read_u8().await.map_err(failed)?);
    }
    let head = String::from_utf8_lossy(&head);
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(stream),
        Some("407") => Err(odd(&format!("it wants a password ({PROXY_AUTHENTICATE})"))),
        code => Err(Trouble::Connect(format!("the proxy {shown} answers {}", code.unwrap_or("nothing")))),
    }
}

fn broken(error: &hyper::Error) -> Trouble {
    let mut text = "the connection broke".to_owned();
    if error.is_incomplete_message() {
        text = "the answer ended early".to_owned();
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Trouble::Broken(text)
}

/// A redirect's target seen from where it was met.
fn resolve(from: &Uri, to: &str) -> String {
    let (scheme, authority) = (from.scheme_str().unwrap_or_default(), from.authority().map(|a| a.as_str()).unwrap_or_default());
    match to {
        to if to.contains("://") => to.to_owned(),
        to if to.starts_with("//") => format!("{scheme}:{to}"),
        to if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        to => format!("{scheme}://{authority}{}/{to}", from.path().rsplit_once('/').map_or("", |(folder, _)| folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved() {
        let from: Uri = "https://a.example/b/c?d".parse().unwrap();
        let check = |to: &str, wanted: &str| assert_eq!(resolve(&from, to), wanted);
        check("https://e.example/f", "https://e.example/f");
        check("//e.example/f", "https://e.example/f");
        check("/f?g", "https://a.example/f?g");
        check("f", "https://a.example/b/f");
    }

    #[test]
    fn proxies_are_left_out_where_no_proxy_says() {
        let env = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://p:1".into()),
            "https_proxy" => Some("http://q:1".into()),
            "NO_PROXY" => Some("localhost,.corp.example, other.example:443".into()),
            _ => None,
        };
        let around = Surroundings::from_env(env);
        let check = |https, host: &str, wanted: Option<&str>| assert_eq!(around.proxy(https, host), wanted, "{host}");
        check(true, "x.ai", Some("http://q:1"));
        check(false, "x.ai", None);
        check(true, "localhost", None);
        check(true, "a.corp.example", None);
        check(true, "corp.example", None);
        check(true, "notcorp.example", Some("http://q:1"));
        check(true, "other.example", None);
    }
}
