//! Digests of secrets that tell only whether a value changed.
//!
//! In: a random key that stays in the jackin home, and a value. Out: `hmac-sha256:` and 16 hex digits. Absent: the value. A plain
//! hash would let anybody who sees a plan test guesses; without the key they cannot.

use super::paths::{Paths, ensure_dir};
use super::{atomic, clock, failure::io_failed};
use crate::diagnostic::Diagnostic;
use crate::resource::hex;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// No `Debug` on purpose.
pub struct KeyedDigest {
    key: SecretBox<[u8; 32]>,
}

impl KeyedDigest {
    /// Reads the key, or makes it on the first run.
    pub fn open(paths: &Paths) -> Result<KeyedDigest, Diagnostic> {
        let path = paths.digest_key();
        let read = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                ensure_dir(&paths.data(), 0o755)?;
                let mut fresh = Zeroizing::new([0; 32]);
                clock::fill(fresh.as_mut())?;
                atomic::create(&path, fresh.as_ref(), 0o600)?;
                fs::read(&path)
            }
            read => read,
        };
        let mut bytes = read.map_err(|error| io_failed("read", &path, &error))?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map(|key| SecretBox::new(Box::new(key)));
        bytes.zeroize();
        key.map(|key| KeyedDigest { key }).map_err(|_| {
            Diagnostic::error("digest.key_invalid", "Digest key is damaged", format!("{} does not hold 32 bytes", path.display()))
                .help("remove the file; the next plan then shows every credential as changed, once")
        })
    }

    /// With a given key, for replays and tests.
    pub fn with_key(key: [u8; 32]) -> KeyedDigest {
        KeyedDigest { key: SecretBox::new(Box::new(key)) }
    }

    pub fn of(&self, value: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).expect("BUG: HMAC takes keys of any length");
        mac.update(value);
        format!("hmac-sha256:{}", hex(&mac.finalize().into_bytes()[..8]))
    }

    pub fn of_secret(&self, value: &SecretString) -> String {
        self.of(value.expose_secret().as_bytes())
    }
}

/// Hex sha256 of a file that is not secret.
pub fn sha256_file(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}
