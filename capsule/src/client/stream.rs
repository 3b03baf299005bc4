//! A socket to the capsule, and what both it and the terminal are written through: waits for room only when there is
//! none. Tokio's own streams wait for it all the time, so that whatever the other side takes wakes this process once
//! more, in the midst of a key's way. Absent: what the bytes mean.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// Of something that does not block.
pub struct Writer {
    fd: OwnedFd,
    /// While there is no room. To tokio anything that can be waited for is a pipe.
    waits: Option<pipe::Sender>,
}

impl Writer {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, waits: None }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let waits = match &mut self.waits {
            Some(waits) => waits,
            none => match rustix::io::write(&self.fd, bytes) {
                // A descriptor of its own, because the other one may be waited for already.
                Err(Errno::AGAIN) => none.insert(pipe::Sender::from_owned_fd_unchecked(self.fd.try_clone()?)?),
                written => return Poll::Ready(Ok(written?)),
            },
        };
        let written = ready!(Pin::new(waits).poll_write(cx, bytes));
        self.waits = None;
        Poll::Ready(written)
    }
}

pub struct Stream {
    reads: pipe::Receiver,
    writes: Writer,
}

impl Stream {
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Self::new(UnixStream::connect(path).await?)
    }

    fn new(stream: UnixStream) -> io::Result<Self> {
        let fd = OwnedFd::from(stream.into_std()?);
        Ok(Self { writes: Writer::new(fd.try_clone()?), reads: pipe::Receiver::from_owned_fd_unchecked(fd)? })
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reads).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(std::os::unix::net::UnixStream::from(self.writes.fd.try_clone()?).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn both_directions_carry_more_than_fits() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut reads, mut writes) = tokio::io::split(Stream::new(ours).unwrap());
        let sent: Vec<u8> = (0..3 << 20_u32).map(|i| (i / 5) as u8).collect();
        let echo = async {
            let mut got = vec![0; sent.len()];
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            theirs.read_exact(&mut got).await.unwrap();
            theirs.write_all(&got).await.unwrap();
            drop(theirs);
        };
        let mut got = Vec::new();
        let send = async {
            writes.write_all(&sent).await.unwrap();
            writes.shutdown().await.unwrap();
        };
        let (read, (), ()) = tokio::join!(reads.read_to_end(&mut got), send, echo);
        assert_eq!(read.unwrap(), sent.len());
        assert!(got == sent);
    }
}
