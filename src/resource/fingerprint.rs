//! One walk over a spec, two sinks: flat fields for people and comparison, sha256 for identity. They cannot disagree.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

/// A spec as flat fields: `mounts./workspace.source` -> `"/src/app"`. Lists are leaves; absent options and empty maps are absent.
pub type Fields = BTreeMap<String, Value>;

/// Flattens anything that serialises to a JSON object.
pub fn fields<T: Serialize>(spec: &T) -> Fields {
    let value = serde_json::to_value(spec).expect("BUG: a spec always serialises");
    let mut out = Fields::new();
    walk(&mut out, String::new(), value);
    out
}

fn walk(out: &mut Fields, path: String, value: Value) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, value) in map {
                walk(out, if path.is_empty() { key } else { format!("{path}.{key}") }, value);
            }
        }
        leaf => {
            out.insert(path, leaf);
        }
    }
}

/// Hex sha256 over the fields, one `"name"=json` line each. Quoted, because a mount's path may hold any character.
pub fn fingerprint(fields: &Fields) -> String {
    let mut hash = Sha256::new();
    for (name, value) in fields {
        hash.update(Value::from(name.as_str()).to_string());
        hash.update("=");
        hash.update(value.to_string());
        hash.update("\n");
    }
    hex(&hash.finalize())
}

/// Hex sha256 of bytes.
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes.as_ref()))
}

/// Hex sha256 of a document's compact JSON, which is never held whole: snapshots run to megabytes.
pub fn sha256_json(document: &impl Serialize) -> String {
    struct Sink(Sha256);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut sink = BufWriter::new(Sink(Sha256::new()));
    serde_json::to_writer(&mut sink, document).expect("BUG: our documents always serialise");
    let Ok(sink) = sink.into_inner() else { unreachable!("BUG: a hash takes any bytes") };
    hex(&sink.0.finalize())
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
