//! What a session's screen needs to be rebuilt after the mux died: a checkpoint and the output since. Bytes in, and on
//! the day of need the same bytes out. It lives in an anonymous memory file whose descriptor init keeps.
//! Absent: what the bytes mean.
//!
//! The writer may be killed between any two system calls. So there are two slots, and one small header written last
//! says which of them counts and how far; a byte beyond that was never there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, MemfdFlags};

use crate::screen::Size;

const MAGIC: u32 = 0x4a4b_5350;
const HEADER: usize = 24;
const SLOTS: [u64; 2] = [4 << 10, 64 << 20];
/// Beyond this a slot only waits for its checkpoint, which is asked for every 128 KB.
const MAX_SLOT: u64 = 32 << 20;

pub struct Spool {
    file: File,
    slot: usize,
    len: u64,
    size: Size,
    focused: u32,
}

impl Spool {
    /// A new, empty file for init to keep.
    pub fn create(size: Size) -> io::Result<OwnedFd> {
        let fd = rustix::fs::memfd_create("jackin-spool", MemfdFlags::CLOEXEC)?;
        let spool = Self { file: File::from(fd), slot: 0, len: 0, size, focused: 0 };
        spool.write_header()?;
        Ok(spool.file.into())
    }

    /// Takes the file over, and gives what is in it.
    pub fn open(fd: OwnedFd) -> io::Result<(Self, Vec<u8>)> {
        let file = File::from(fd);
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let word = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let (slot, len) = (word(4) as usize, u64::from(word(8)));
        if word(0) != MAGIC || slot >= SLOTS.len() || len > MAX_SLOT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a spool"));
        }
        let size = Size::clamped(word(12) as u16, word(16) as u16);
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, SLOTS[slot])?;
        Ok((Self { file, slot, len, size, focused: word(20) }, bytes))
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// The larger, the later its session was looked at.
    pub fn focused(&self) -> u32 {
        self.focused
    }

    pub fn set_focused(&mut self, focused: u32) -> io::Result<()> {
        self.focused = focused;
        self.write_header()
    }

    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.len + bytes.len() as u64 > MAX_SLOT {
            return Ok(());
        }
        self.file.write_all_at(bytes, SLOTS[self.slot] + self.len)?;
        self.len += bytes.len() as u64;
        self.write_header()
    }

    pub fn checkpoint(&mut self, size: Size, bytes: &[u8]) -> io::Result<()> {
        let old = self.slot;
        self.slot = 1 - old;
        self.file.write_all_at(bytes, SLOTS[self.slot])?;
        (self.len, self.size) = (bytes.len() as u64, size);
        self.write_header()?;
        // Gives the memory of the old slot back; a kernel that will not only costs memory.
        let _ = rustix::fs::fallocate(self.file.as_fd(), FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, SLOTS[old], MAX_SLOT);
        Ok(())
    }

    fn write_header(&self) -> io::Result<()> {
        let words = [MAGIC, self.slot as u32, self.len as u32, u32::from(self.size.rows), u32::from(self.size.cols), self.focused];
        self.file.write_all_at(&words.map(u32::to_le_bytes).concat(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rows: 24, cols: 80 };

    fn reopened(spool: &Spool) -> (Size, Vec<u8>) {
        let (spool, bytes) = Spool::open(spool.file.try_clone().unwrap().into()).unwrap();
        (spool.size(), bytes)
    }

    #[test]
    fn output_is_kept_and_a_checkpoint_replaces_it() {
        let (mut spool, bytes) = Spool::open(Spool::create(SIZE).unwrap()).unwrap();
        assert_eq!(bytes, b"");
        spool.append(b"one").unwrap();
        spool.append(b" two").unwrap();
        assert_eq!(reopened(&spool), (SIZE, b"one two".to_vec()));
        let wide = Size { rows: 30, cols: 200 };
        spool.checkpoint(wide, b"whole").unwrap();
        spool.set_focused(9).unwrap();
        spool.append(b"+tail").unwrap();
        assert_eq!(Spool::open(spool.file.try_clone().unwrap().into()).unwrap().0.focused(), 9);
        assert_eq!(reopened(&spool), (wide, b"whole+tail".to_vec()));
        spool.checkpoint(SIZE, b"x").unwrap();
        assert_eq!(reopened(&spool), (SIZE, b"x".to_vec()));
    }

    #[test]
    fn bytes_without_their_header_were_never_there() {
        let (mut spool, _) = Spool::open(Spool::create(SIZE).unwrap()).unwrap();
        spool.append(b"kept").unwrap();
        spool.file.write_all_at(b"torn", SLOTS[0] + 4).unwrap();
        spool.file.write_all_at(b"half a checkpoint", SLOTS[1]).unwrap();
        assert_eq!(reopened(&spool).1, b"kept");
    }

    #[test]
    fn checkpoints_give_memory_back() {
        use std::os::unix::fs::MetadataExt;
        let (mut spool, _) = Spool::open(Spool::create(SIZE).unwrap()).unwrap();
        let chunk = vec![b'x'; 128 << 10];
        for _ in 0..50 {
            spool.append(&chunk).unwrap();
            spool.checkpoint(SIZE, b"screen").unwrap();
        }
        let used = spool.file.metadata().unwrap().blocks() * 512;
        assert!(used < 1 << 20, "{used} bytes in use");
    }

    #[test]
    fn garbage_is_refused() {
        let fd = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.write_all_at(&[7; 100], 0).unwrap();
        assert!(Spool::open(file.into()).is_err());
    }
}
