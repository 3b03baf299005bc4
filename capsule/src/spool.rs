//! What a session's screen needs to be rebuilt after the mux died: its scrollback, a checkpoint of its screen and the
//! output since. Bytes in, and on the day of need the same bytes out. All of it lies in one anonymous memory file, whose
//! descriptor init keeps. Scrollback lies nowhere else: a living mux reads it from here, too. Absent: what the bytes mean.
//!
//! The writer may be killed between any two system calls, and within one at any page. Nothing is lost nevertheless:
//!
//! - Output does not pass through the mux on its way here. It is spliced from the terminal into a pipe, which init keeps
//!   as well, and from there into the file; only then does the mux read it. Whatever a dying mux leaves in the pipe is
//!   the next one's first output.
//! - The log of output has no length written down. It ends where the file ends, and the kernel moves that end only
//!   behind bytes that are there. An append is one call.
//! - A checkpoint goes behind the log, which is *sealed* meanwhile: the header says that it ends before. A second write
//!   of the header, within one page and therefore whole or not at all, makes the checkpoint the new beginning, counts
//!   the scrollback that belongs to it, and lifts the seal. Until then everything behind the seal was never there.
//!
//! Scrollback is what had left the screen by the time of the checkpoint; what left it since, the output brings back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::pty::{self, FEW, Taken};
use crate::pump::Pump;
use crate::screen::{News, Size, Store, Stored};

const MAGIC: u64 = 0x0003_4a4b_5350_4f4c;
const WORDS: usize = 7;
const PAGE: u64 = 4 << 10;
/// One region grows behind the header, the other from far away; between them is nothing, which costs nothing.
const HISTORY: u64 = PAGE;
const LOG: u64 = 1 << 60;
/// A log that gets no checkpoint, because it is always in the midst of a sequence, is cut to its end.
const MAX_LOG: u64 = 32 << 20;
/// More than the screen ever keeps.
const MAX_HISTORY: u64 = 16 << 20;

/// What a pump may be ahead by.
const PUMPED: usize = 256 << 10;

/// Descriptors that make up a spool: the file, and both ends of the pipe before it.
pub const FDS: usize = 3;

pub struct Spool {
    file: Arc<File>,
    pipe: (OwnedFd, Arc<OwnedFd>),
    /// Where the checkpoint begins, and where the log ends, which is the end of the file.
    start: u64,
    end: u64,
    size: Size,
    history: (u64, u64),
    /// This kernel splices terminals. Those of 5.10 do not; then a chunk that was read but not yet appended when the
    /// mux was killed is lost.
    splices: bool,
}

/// The region of scrollback, for whoever shows it.
struct Region(Arc<File>);

impl Store for Region {
    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        match self.0.read_exact_at(&mut bytes, HISTORY + at) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }
}

/// What a mux finds.
pub struct Found {
    pub spool: Spool,
    pub history: Stored,
    pub replay: Vec<u8>,
}

impl Spool {
    /// A new, empty one for init to keep.
    pub fn create(size: Size) -> io::Result<[OwnedFd; FDS]> {
        let file = File::from(rustix::fs::memfd_create("jackin-spool", MemfdFlags::CLOEXEC)?);
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        file.set_len(LOG)?;
        write_header(&file, size, LOG, 0, (HISTORY, HISTORY))?;
        Ok([file.into(), pipe.0, pipe.1])
    }

    /// Takes it over, and gives what is in it.
    pub fn open(fds: [OwnedFd; FDS]) -> io::Result<Found> {
        let [file, reader, writer] = fds;
        let file = File::from(file);
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "not a spool");
        let mut header = [0; WORDS * 8];
        file.read_exact_at(&mut header, 0)?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(header.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [magic, rows, cols, start, sealed, history_start, history_end] = words;
        let size = Size::clamped(rows as u16, cols as u16);
        let mut end = file.metadata()?.len();
        if magic != MAGIC || start < LOG || end < start {
            return Err(garbled());
        }
        if sealed != 0 {
            // A checkpoint was being written.
            if sealed < start || sealed > end {
                return Err(garbled());
            }
            file.set_len(sealed)?;
            write_header(&file, size, start, 0, (history_start, history_end))?;
            end = sealed;
        }
        let mut spool = Self {
            file: Arc::new(file),
            pipe: (reader, Arc::new(writer)),
            start,
            end,
            size,
            history: (history_start, history_end),
            splices: true,
        };
        while spool.move_piped(1 << 20)? > 0 {}
        let strange = !(HISTORY..=history_end).contains(&history_start) || history_end - history_start > MAX_HISTORY;
        if strange || spool.end - spool.start > 2 * MAX_LOG {
            return Err(garbled());
        }
        let mut replay = vec![0; (spool.end - spool.start) as usize];
        spool.file.read_exact_at(&mut replay, spool.start)?;
        let mut records = vec![0; (history_end - history_start) as usize];
        spool.file.read_exact_at(&mut records, history_start)?;
        let history = Stored { store: Box::new(Region(spool.file.clone())), at: history_start - HISTORY, records };
        Ok(Found { spool, history, replay })
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// Takes what the terminal has, up to the buffer, keeps it and gives it. The pipe is empty before, and afterwards.
    pub fn take(&mut self, terminal: impl AsFd, buffer: &mut [u8]) -> io::Result<Taken> {
        let mut closed = false;
        let mut piped = 0;
        while self.splices && (piped == 0 || buffer.len() - piped >= FEW) {
            match pty::splice(&terminal, &self.pipe.1, buffer.len() - piped) {
                Ok(len @ 1..) => {
                    piped += len;
                    if len < FEW {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => self.splices = false,
                // An I/O error is how Linux says that the last program has closed the terminal.
                Ok(0) | Err(_) => {
                    closed = true;
                    break;
                }
            }
        }
        let mut len = self.take_piped(&mut buffer[..piped])?;
        if !self.splices {
            let taken = pty::read(terminal, &mut buffer[len..]);
            self.append(&buffer[len..len + taken.len])?;
            self.bound()?;
            len += taken.len;
            closed = taken.closed;
        }
        Ok(Taken { len, closed })
    }

    /// The same of what is in the pipe already; the result is how much.
    pub fn take_piped(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.end;
        let taken = |spool: &Self| (spool.end - before) as usize;
        while taken(self) < buffer.len() && self.move_piped(buffer.len() - taken(self))? > 0 {}
        let len = taken(self);
        if len > 0 {
            self.file.read_exact_at(&mut buffer[..len], before)?;
            self.bound()?;
        }
        Ok(len)
    }

    /// Carries the terminal's output into the pipe beside us, so that only `take_piped` may be asked until that has ended.
    /// Nothing where terminals cannot be spliced.
    pub fn pump(&self, terminal: &Arc<OwnedFd>) -> io::Result<Option<Pump>> {
        // Lines that nobody will see cost least when many come at once. Not granted, it is only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&self.pipe.1, PUMPED);
        self.splices.then(|| Pump::start(terminal.clone(), self.pipe.1.clone())).transpose()
    }

    /// What is still in the pipe, for whoever goes on without the rest.
    pub fn into_pipe(self) -> OwnedFd {
        self.pipe.0
    }

    /// Readable when something is in it.
    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.0.as_fd()
    }

    /// From the pipe into the file; the result is how much.
    fn move_piped(&mut self, limit: usize) -> io::Result<usize> {
        loop {
            let mut at = self.end;
            match rustix::pipe::splice(&self.pipe.0, None, &self.file, Some(&mut at), limit, SpliceFlags::NONBLOCK) {
                Ok(len) => {
                    self.end += len as u64;
                    return Ok(len);
                }
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The same for bytes that are read already.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn bound(&mut self) -> io::Result<()> {
        if self.end - self.start <= MAX_LOG {
            return Ok(());
        }
        // Its beginning will be missing on the screen; what is printed later will not.
        let old = self.start;
        self.start = self.end - MAX_LOG / 2;
        write_header(&self.file, self.size, self.start, 0, self.history)?;
        self.free(old, self.start);
        Ok(())
    }

    /// `bytes` supersede all output so far; `history` is what is new of what scrolled off since the last checkpoint.
    pub fn checkpoint(&mut self, size: Size, bytes: &[u8], history: &News) -> io::Result<()> {
        let (old, seal) = (self.start, self.end);
        write_header(&self.file, size, old, seal, self.history)?;
        let (dropped, end) = self.history;
        // The file is longer than this, so its end does not move.
        self.file.write_all_at(&history.records, end)?;
        let last = end + history.records.len() as u64;
        let first = (HISTORY + history.needed).clamp(dropped, last);
        self.append(bytes)?;
        write_header(&self.file, size, seal, 0, (first, last))?;
        (self.start, self.size, self.history) = (seal, size, (first, last));
        self.free(old, seal);
        self.free(dropped, first);
        Ok(())
    }

    /// What would be replayed now.
    pub fn replay(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (self.end - self.start) as usize];
        self.file.read_exact_at(&mut bytes, self.start)?;
        Ok(bytes)
    }

    /// Gives memory back, whole pages of it; a kernel that will not only costs memory.
    fn free(&self, from: u64, to: u64) {
        let (from, to) = (from.div_euclid(PAGE) * PAGE, to.div_euclid(PAGE) * PAGE);
        // The first page of the region may hold the end of what was freed before, and nothing else that counts.
        if to > from && from > 0 {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = rustix::fs::fallocate(&self.file, flags, from, to - from);
        }
    }
}

fn write_header(file: &File, size: Size, start: u64, sealed: u64, history: (u64, u64)) -> io::Result<()> {
    let words = [MAGIC, u64::from(size.rows), u64::from(size.cols), start, sealed, history.0, history.1];
    file.write_all_at(&words.map(u64::to_le_bytes).concat(), 0)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;
    use std::io::Write;

    use super::*;

    const SIZE: Size = Size { rows: 24, cols: 80 };
    const WIDE: Size = Size { rows: 30, cols: 200 };

    /// A spool, and a second set of its descriptors as init has them.
    fn spool() -> (Spool, [OwnedFd; FDS]) {
        let fds = Spool::create(SIZE).unwrap();
        (Spool::open(copies(&fds)).unwrap().spool, fds)
    }

    fn copies(fds: &[OwnedFd; FDS]) -> [OwnedFd; FDS] {
        fds.each_ref().map(|fd| fd.try_clone().unwrap())
    }

    fn found(fds: &[OwnedFd; FDS]) -> (Size, Vec<u8>, Vec<u8>) {
        let found = Spool::open(copies(fds)).unwrap();
        (found.spool.size(), found.history.records, found.replay)
    }

    fn news(records: &[u8], needed: u64) -> News {
        News { records: records.to_vec(), needed }
    }

    #[test]
    fn output_is_kept_and_a_checkpoint_replaces_it() {
        let (mut spool, fds) = spool();
        assert_eq!(found(&fds), (SIZE, vec![], vec![]));
        spool.append(b"one").unwrap();
        spool.append(b" two").unwrap();
        assert_eq!(found(&fds), (SIZE, vec![], b"one two".to_vec()));
        spool.checkpoint(WIDE, b"whole", &news(b"above;", 0)).unwrap();
        spool.append(b"+tail").unwrap();
        assert_eq!(found(&fds), (WIDE, b"above;".to_vec(), b"whole+tail".to_vec()));
        assert_eq!(spool.replay().unwrap(), b"whole+tail");
        spool.checkpoint(SIZE, b"x", &news(b"more;", 0)).unwrap();
        spool.checkpoint(SIZE, b"y", &news(b"", 0)).unwrap();
        assert_eq!(found(&fds), (SIZE, b"above;more;".to_vec(), b"y".to_vec()));
        spool.checkpoint(SIZE, b"z", &news(b"end", 6)).unwrap();
        let Found { history, .. } = Spool::open(copies(&fds)).unwrap();
        assert_eq!((history.at, &history.records[..]), (6, &b"more;end"[..]));
        assert_eq!(history.store.read(6, 5), b"more;");
        // A region that ends up empty.
        spool.checkpoint(SIZE, b"z", &news(b"", 14)).unwrap();
        assert_eq!(found(&fds).1, b"");
    }

    #[test]
    fn a_terminal_is_read_through_the_file() {
        let (mut spool, fds) = spool();
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 16 << 10];
        assert_eq!(spool.take(&reader, &mut buffer).unwrap(), Taken { len: 0, closed: false });
        let sent: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
        writer.write_all(&sent).unwrap();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let taken = spool.take(&reader, &mut buffer).unwrap();
            got.extend_from_slice(&buffer[..taken.len]);
        }
        assert!(spool.splices);
        assert_eq!(got, sent);
        assert_eq!(found(&fds).2, sent);
        drop(writer);
        assert_eq!(spool.take(&reader, &mut buffer).unwrap(), Taken { len: 0, closed: true });
    }

    fn has_ended(pump: &Pump, limit_s: i64) -> bool {
        let mut fds = [rustix::event::PollFd::new(pump, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: limit_s, tv_nsec: 0 })).unwrap() == 1
    }

    /// What is printed while a pump comes and goes, in order and to the last byte.
    #[test]
    fn a_pump_carries_what_is_printed() {
        const LEN: usize = 8 << 20;
        let (mut spool, _fds) = spool();
        let (mut writer, terminal) = std::os::unix::net::UnixStream::pair().unwrap();
        terminal.set_nonblocking(true).unwrap();
        let terminal = Arc::new(OwnedFd::from(terminal));
        let sent: Vec<u8> = (0..LEN as u32).map(|i| (i / 7) as u8).collect();
        let printed = sent.clone();
        let printer = std::thread::spawn(move || writer.write_all(&printed).unwrap());
        let (mut got, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        for round in 1.. {
            let pump = spool.pump(&terminal).unwrap().unwrap();
            // It is stopped in the midst, with the pipe empty or full.
            while got.len() < (round * LEN / 10).min(LEN) {
                let len = spool.take_piped(&mut buffer).unwrap();
                got.extend_from_slice(&buffer[..len]);
                if len == 0 && has_ended(&pump, 0) {
                    break;
                }
            }
            if round % 2 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            drop(pump);
            while let len @ 1.. = spool.take_piped(&mut buffer).unwrap() {
                got.extend_from_slice(&buffer[..len]);
            }
            let taken = spool.take(&terminal, &mut buffer).unwrap();
            got.extend_from_slice(&buffer[..taken.len]);
            if taken.closed {
                break;
            }
            spool.checkpoint(SIZE, b"", &news(b"", 0)).unwrap();
        }
        printer.join().unwrap();
        assert!(got == sent, "{} of {LEN} bytes came, or in another order", got.len());
    }

    #[test]
    fn a_pump_ends_when_nothing_comes() {
        let (mut spool, _fds) = spool();
        let (mut writer, terminal) = std::os::unix::net::UnixStream::pair().unwrap();
        terminal.set_nonblocking(true).unwrap();
        let terminal = Arc::new(OwnedFd::from(terminal));
        writer.write_all(b"first").unwrap();
        let pump = spool.pump(&terminal).unwrap().unwrap();
        assert!(has_ended(&pump, 60), "quiet");
        writer.write_all(b", last").unwrap();
        let mut buffer = [0; 100];
        let first = spool.take_piped(&mut buffer).unwrap();
        let last = spool.take(&terminal, &mut buffer[first..]).unwrap();
        assert_eq!((first, last), (5, Taken { len: 6, closed: false }));
        assert_eq!(&buffer[..11], b"first, last");
        // Nor is much needed to go on, but more than a trickle.
        let pump = spool.pump(&terminal).unwrap().unwrap();
        let mut trickles = || writer.write_all(b".").is_ok() && !has_ended(&pump, 0);
        let started = std::time::Instant::now();
        while trickles() {
            assert!(started.elapsed().as_secs() < 60, "a trickle");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        drop(pump);
        // A full pipe is no end.
        let chunk = vec![0; 4 * PUMPED];
        let printer = std::thread::spawn(move || writer.write_all(&chunk));
        while spool.take(&terminal, &mut [0; 4096]).unwrap().len < 4096 {}
        let pump = spool.pump(&terminal).unwrap().unwrap();
        assert!(!has_ended(&pump, 1), "full");
        drop(terminal);
        drop(pump);
        drop(spool);
        let _ = printer.join().unwrap();
    }

    #[test]
    fn what_a_dying_mux_left_in_the_pipe_comes_first() {
        let (mut spool, fds) = spool();
        spool.append(b"spooled, ").unwrap();
        rustix::io::write(&fds[2], b"in the pipe").unwrap();
        assert_eq!(found(&fds).2, b"spooled, in the pipe");
    }

    /// Every state that a killed writer can leave: the calls of a checkpoint, cut after any number of bytes.
    #[test]
    fn a_checkpoint_counts_wholly_or_not_at_all() {
        let old = (SIZE, b"above;".to_vec(), b"old screen, and output".to_vec());
        let new = (WIDE, b"above;more;".to_vec(), b"new screen".to_vec());
        for step in 0..=4 {
            for cut in 0..=10 {
                let (mut spool, fds) = spool();
                spool.checkpoint(SIZE, b"old screen", &news(b"above;", 0)).unwrap();
                spool.append(b", and output").unwrap();
                let (start, seal, (first, last)) = (spool.start, spool.end, spool.history);
                let write = |number, at, bytes: &[u8]| match step.cmp(&number) {
                    Ordering::Less => {}
                    Ordering::Equal => spool.file.write_all_at(&bytes[..cut.min(bytes.len())], at).unwrap(),
                    Ordering::Greater => spool.file.write_all_at(bytes, at).unwrap(),
                };
                if step >= 1 {
                    write_header(&spool.file, SIZE, start, seal, (first, last)).unwrap();
                }
                write(2, last, b"more;");
                write(3, seal, b"new screen");
                if step >= 4 {
                    write_header(&spool.file, WIDE, seal, 0, (first, last + 5)).unwrap();
                }
                assert_eq!(found(&fds), if step == 4 { new.clone() } else { old.clone() }, "step {step}, {cut} bytes");
                // And it goes on from there.
                let mut next = Spool::open(copies(&fds)).unwrap().spool;
                next.append(b"!").unwrap();
                next.checkpoint(SIZE, b"next", &news(b"last;", 0)).unwrap();
                assert_eq!(found(&fds).2, b"next");
            }
        }
    }

    #[test]
    fn memory_is_given_back() {
        use std::os::unix::fs::MetadataExt;
        let (mut spool, fds) = spool();
        let chunk = vec![b'x'; 128 << 10];
        let kept = 10 * chunk.len() as u64;
        for i in 1..=100 {
            spool.append(&chunk).unwrap();
            spool.checkpoint(SIZE, b"screen", &news(&chunk, (i * chunk.len() as u64).saturating_sub(kept))).unwrap();
        }
        let used = spool.file.metadata().unwrap().blocks() * 512;
        assert!(used < kept + (64 << 10), "{used} bytes in use");
        assert_eq!(found(&fds).1.len() as u64, kept);
        for _ in 0..1000 {
            spool.append(&chunk).unwrap();
            spool.bound().unwrap();
        }
        let used = spool.file.metadata().unwrap().blocks() * 512;
        assert!(used < kept + MAX_LOG + (1 << 20), "{used} bytes in use");
        assert!(found(&fds).2.len() as u64 >= MAX_LOG / 2);
    }

    #[test]
    fn garbage_is_refused() {
        let [_, reader, writer] = Spool::create(SIZE).unwrap();
        let file = File::from(rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(&[7; 100], 0).unwrap();
        assert!(Spool::open([file.into(), reader, writer]).is_err());
    }
}
