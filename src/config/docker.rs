//! `[docker]` tables: profile and grants, each value checked as far as one table can tell.
//!
//! In: a table. Out: `DockerPolicy`, `Grants`. Absent: profiles' numbers and layers (`layer.rs`), the engine.

use super::model::{Dind, DockerPolicy, Grants, Located, NetworkMode, Profile};
use super::reader::{Table, Unknown, near, quote};
use std::ops::Range;
use toml::de::DeValue;

pub const PROFILES: [(&str, Profile); 4] =
    [("locked", Profile::Locked), ("hardened", Profile::Hardened), ("standard", Profile::Standard), ("compat", Profile::Compat)];
pub const DIND: [(&str, Dind); 3] = [("none", Dind::None), ("rootless", Dind::Rootless), ("privileged", Dind::Privileged)];
const NETWORK: [(&str, NetworkMode); 3] = [("none", NetworkMode::None), ("allowlist", NetworkMode::Allowlist), ("open", NetworkMode::Open)];

/// Linux' capabilities, without `CAP_`.
pub const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// `docker` below a workspace or an instance: profile and grants. The global one also has `mounts`, asked for before.
pub fn read_docker(table: &Table<'_>) -> DockerPolicy {
    let profile = table.word("profile", &PROFILES);
    let grants = table.table("grants").map(|grants| read_grants(&grants)).unwrap_or_default();
    table.finish(Unknown::Reject);
    DockerPolicy { profile, grants }
}

fn read_grants(table: &Table<'_>) -> Grants {
    let grants = Grants {
        network: table.word("network", &NETWORK),
        allowed_hosts: read_hosts(table),
        dind: table.word("dind", &DIND),
        user: table.line("user"),
        sudo: table.boolean("sudo"),
        system_writes: table.boolean("system_writes"),
        memory: size(table, "memory"),
        memory_reservation: size(table, "memory_reservation"),
        cpus: cpus(table),
        pids: table.integer("pids", 1),
        nofile: table.integer("nofile", 1),
        capabilities_add: read_capabilities(table),
    };
    table.finish(Unknown::Reject);
    if let (Some(user), Some(sudo)) = (&grants.user, &grants.sudo)
        && user.value == "root"
        && sudo.value
    {
        table.reader.error(
            place(table, "user"),
            "user_and_sudo",
            "A capsule cannot both be root and have sudo",
            format!("`[{}]` sets `user = \"root\"` and `sudo = true`", table.path),
            "remove one of the two lines",
        );
    }
    if let (Some(memory), Some(reservation)) = (&grants.memory, &grants.memory_reservation)
        && reservation.value > memory.value
    {
        table.reader.error(
            place(table, "memory_reservation"),
            "reservation_over_memory",
            "A memory reservation is above its limit",
            format!("`[{}]` reserves {} bytes of at most {}", table.path, reservation.value, memory.value),
            "lower `memory_reservation` or raise `memory`",
        );
    }
    grants
}

fn place(table: &Table<'_>, key: &str) -> Range<usize> {
    table.map.get(key).map_or(table.place.clone(), |value| value.span())
}

fn size(table: &Table<'_>, key: &'static str) -> Option<Located<i64>> {
    let (_, value) = table.get(key)?;
    let DeValue::String(text) = value.get_ref() else {
        table.reader.wrong_type(&table.path_of(key), value, "a string", "write a size such as `\"8G\"`");
        return None;
    };
    match parse_size(text) {
        Ok(bytes) => Some(Located::new(bytes, table.reader.span(&value.span()))),
        Err(problem) => {
            table.reader.error(
                value.span(),
                "size",
                "A size is not readable",
                format!("`{}` is `{}`: {problem}", table.path_of(key), quote(text)),
                "write a whole number and K, M, G or T, such as `\"8G\"`",
            );
            None
        }
    }
}

/// `8G`, `512mb`, `1073741824`: 1024-based, no fractions.
pub fn parse_size(text: &str) -> Result<i64, &'static str> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not start with a digit");
    }
    if unit.starts_with(['.', ',']) {
        return Err("fractions are not read");
    }
    let shift = match unit.trim_start().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" => 10,
        "M" | "MB" => 20,
        "G" | "GB" => 30,
        "T" | "TB" => 40,
        _ => return Err("its unit is not known"),
    };
    let bytes = number.parse::<i64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or("it is too large")?;
    if bytes == 0 { Err("it is zero") } else { Ok(bytes) }
}

fn cpus(table: &Table<'_>) -> Option<Located<f64>> {
    let (_, value) = table.get("cpus")?;
    let (number, text) = match value.get_ref() {
        DeValue::Integer(digits) => (i64::from_str_radix(digits.as_str(), digits.radix()).ok().map(|n| n as f64), digits.as_str()),
        DeValue::Float(digits) => (digits.as_str().parse::<f64>().ok(), digits.as_str()),
        _ => {
            table.reader.wrong_type(&table.path_of("cpus"), value, "a number", "write `2` or `1.5`, without quotes");
            return None;
        }
    };
    match number.filter(|n| n.is_finite() && *n > 0.0) {
        Some(number) => Some(Located::new(number, table.reader.span(&value.span()))),
        None => {
            table.out_of_range("cpus", value, text, "a number above 0");
            None
        }
    }
}

pub fn read_hosts(table: &Table<'_>) -> Vec<Located<String>> {
    let mut hosts = Vec::new();
    for (at, host) in table.lines_at("allowed_hosts") {
        if let Some(problem) = host_problem(&host.value) {
            table.reader.error(
                at,
                "host",
                "A host is not readable",
                format!("`{}` in `{}`: {problem}", quote(&host.value), table.path_of("allowed_hosts")),
                "write a host name, `*.example.com`, an IPv4 address or range, or `host:port`",
            );
        }
        hosts.push(host);
    }
    hosts
}

fn host_problem(text: &str) -> Option<&'static str> {
    if text.contains("://") {
        return Some("it is a URL, not a host");
    }
    // The list travels to the firewall with commas between its entries.
    if text.contains(|c: char| c.is_whitespace() || c == ',') {
        return Some("it holds a space or a comma");
    }
    if text.starts_with('-') { Some("it starts with `-`") } else { None }
}

pub fn read_capabilities(table: &Table<'_>) -> Vec<Located<String>> {
    let mut known: Vec<Located<String>> = Vec::new();
    for (at, written) in table.lines_at("capabilities_add") {
        match capability(&written.value) {
            Some(name) if known.iter().any(|k| k.value == name) => {}
            Some(name) => known.push(Located::new(name.to_owned(), written.span)),
            None => {
                let upper = written.value.to_ascii_uppercase();
                let help = match near(upper.strip_prefix("CAP_").unwrap_or(&upper), CAPABILITIES) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "see capabilities(7) for the names".to_owned(),
                };
                table.reader.error(
                    at,
                    "capability",
                    "There is no such capability",
                    format!("`{}` in `{}`", quote(&written.value), table.path_of("capabilities_add")),
                    help,
                );
            }
        }
    }
    known
}

/// The canonical name: upper case, without `CAP_`.
pub fn capability(text: &str) -> Option<&'static str> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CAPABILITIES.into_iter().find(|name| *name == bare)
}
