//! A text beside the one in `tests/golden/`, which `UPDATE_GOLDEN=1` rewrites.

pub fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("golden file can be written");
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}; make it with UPDATE_GOLDEN=1"));
    assert!(wanted == text, "{path} differs; UPDATE_GOLDEN=1 rewrites it\n--- wanted\n{wanted}\n--- got\n{text}");
}
