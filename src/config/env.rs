//! Env entries: the names an operator may set and the forms a value may take.
//!
//! In: `[env]` tables. Out: `EnvMap`. Absent: layers, host variables' values, the `op` program.

use super::model::{EnvMap, EnvValue, Located};
use super::reader::{Key, Table, Unknown, Value, host_variable, quote};
use secrecy::SecretString;
use toml::de::DeValue;

/// Set by jackin itself in every container; a configuration that sets one would be silently overruled.
pub const RESERVED: [&str; 19] = [
    "JACKIN",
    "JACKIN_DIND_HOSTNAME",
    "JACKIN_CONTAINER_NAME",
    "JACKIN_INSTANCE_ID",
    "JACKIN_AGENT",
    "JACKIN_AGENT_CODENAME",
    "JACKIN_ROLE",
    "JACKIN_WORKDIR",
    "JACKIN_GIT_COAUTHOR_TRAILER",
    "JACKIN_GIT_DCO",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "TESTCONTAINERS_HOST_OVERRIDE",
    "JACKIN_NETWORK_MODE",
    "JACKIN_ALLOWED_HOSTS",
    "JACKIN_FIREWALL_INSTALLED",
    "JACKIN_NETWORK_ENFORCEMENT",
    "JACKIN_SUDO",
];

/// The names that mean something in `[github.env]`.
pub const GITHUB_NAMES: [&str; 3] = ["GH_TOKEN", "GH_HOST", "GH_ENTERPRISE_TOKEN"];

/// Reads `table.env`. `op_account` is the account that files before `v1alpha5` set once for all their references.
pub fn read_env(table: &Table<'_>, op_account: Option<&str>) -> EnvMap {
    read(table, op_account, true)
}

/// Reads `github.env`, whose entries never become ordinary variables and so may have any name.
pub fn read_github_env(table: &Table<'_>, op_account: Option<&str>) -> EnvMap {
    let map = read(table, op_account, false);
    if let Some((_, value)) = table.map.get_key_value("env")
        && let DeValue::Table(entries) = value.get_ref()
    {
        for (key, _) in entries.iter().filter(|(key, _)| !GITHUB_NAMES.contains(&key.get_ref().as_ref())) {
            table.reader.warn(
                key.span(),
                "no_effect",
                "A setting has no effect",
                format!("`{}` in `[{}]` is not read", quote(key.get_ref()), table.path_of("env")),
                format!("only {} are read here; put other variables into `[env]`", GITHUB_NAMES.map(|n| format!("`{n}`")).join(", ")),
            );
        }
    }
    map
}

fn read(table: &Table<'_>, op_account: Option<&str>, ordinary: bool) -> EnvMap {
    let mut map = EnvMap::new();
    let Some(entries) = table.table("env") else {
        return map;
    };
    for (key, value) in entries.entries() {
        if entries.reader.full() {
            break;
        }
        let name = key.get_ref().as_ref();
        if ordinary && !check_name(&entries, key, value) {
            continue;
        }
        if let Some(read) = read_value(&entries, key, value, op_account) {
            map.insert(name.to_owned(), Located::new(read, entries.reader.span(&value.span())));
        }
    }
    map
}

fn check_name(entries: &Table<'_>, key: &Key<'_>, value: &Value<'_>) -> bool {
    let name = key.get_ref().as_ref();
    let reader = entries.reader;
    if RESERVED.contains(&name) {
        reader.error(
            key.span(),
            "reserved_env",
            "An env name is reserved",
            format!("`{name}` in `[{}]` is set by jackin itself", entries.path),
            "remove the line",
        );
        return false;
    }
    if name.is_empty() || name.contains('=') || name.chars().any(char::is_control) {
        reader.error(
            key.span(),
            "env_name",
            "An env name is not usable",
            format!("`{}` in `[{}]` cannot be the name of a variable", quote(name), entries.path),
            "use letters, digits and `_`",
        );
        return false;
    }
    // Far too easily done: a setting written below the first table header becomes a variable.
    if reader.sort.top_level.contains(&name) && matches!(value.get_ref(), DeValue::String(_)) {
        reader.warn(
            key.span(),
            "misplaced_field",
            "A setting is read as an env entry",
            format!("`{name}` stands below `[{}]` and so sets a variable of that name", entries.path),
            format!("`{name}` belongs above the first table"),
        );
    }
    true
}

fn read_value<'r>(entries: &Table<'r>, key: &'r Key<'r>, value: &'r Value<'r>, op_account: Option<&str>) -> Option<EnvValue> {
    match value.get_ref() {
        DeValue::String(text) => from_text(entries, key, value, text, false, op_account),
        DeValue::Table(form) => {
            let form = entries.child(key, form);
            let on_demand = form.flag("on_demand");
            let op = form.has("op");
            let read = if op {
                let reference = form.string("op");
                let path = form.line("path").map(|p| p.value);
                let account = form.line("account").map(|a| a.value);
                if let Some((_, found)) = form.map.get_key_value("value") {
                    form.reader.error(
                        found.span(),
                        "env_value",
                        "An env value is not usable",
                        format!("`{}` has both `op` and `value`", form.path),
                        "keep one of them",
                    );
                    let _ = form.get("value");
                }
                reference.and_then(|reference| {
                    let (_, at) = form.map.get_key_value("op")?;
                    check_reference(&form, at, &reference.value).then(|| EnvValue::Op {
                        reference: reference.value,
                        path,
                        account: account.or_else(|| op_account.map(str::to_owned)),
                        on_demand,
                    })
                })
            } else if form.has("value") {
                let text = form.string("value");
                let (_, at) = form.map.get_key_value("value")?;
                text.and_then(|text| from_text(&form, key, at, &text.value, on_demand, op_account))
            } else {
                form.missing("op` or `value", "write `{ op = \"op://vault/item/field\", path = \"…\" }` or `{ value = \"…\" }`");
                // So that the other form's fields are not called unknown on top of it.
                for known in ["op", "value", "path", "account"] {
                    let _ = form.get(known);
                }
                None
            };
            form.finish(Unknown::Reject);
            read
        }
        _ => {
            let help = if entries.reader.sort.top_level.contains(&key.get_ref().as_ref()) {
                format!("`{}` belongs above the first table", key.get_ref())
            } else {
                "put the value in double quotes".to_owned()
            };
            entries.reader.wrong_type(&entries.path_of(key.get_ref()), value, "a string or a table", &help);
            None
        }
    }
}

fn from_text(table: &Table<'_>, key: &Key<'_>, at: &Value<'_>, text: &str, on_demand: bool, account: Option<&str>) -> Option<EnvValue> {
    if let Some(name) = host_variable(text) {
        return Some(EnvValue::Host { name: name.to_owned(), on_demand });
    }
    // Handing the reference itself to a program as its credential helps nobody, so both forms mean the same.
    if text.starts_with("op://") {
        return check_reference(table, at, text).then(|| EnvValue::Op {
            reference: text.to_owned(),
            path: None,
            account: account.map(str::to_owned),
            on_demand,
        });
    }
    if text.contains('\0') {
        table.reader.error(
            at.span(),
            "env_value",
            "An env value is not usable",
            format!("the value of `{}` holds a NUL character", quote(key.get_ref())),
            "remove `\\u0000` from the value",
        );
        return None;
    }
    Some(EnvValue::Literal { value: SecretString::from(text), on_demand })
}

fn check_reference(table: &Table<'_>, at: &Value<'_>, text: &str) -> bool {
    let Some(rest) = text.strip_prefix("op://") else {
        // Somebody may have put the credential itself here, so it is not repeated.
        table.reader.error(
            at.span(),
            "op_reference",
            "A 1Password reference is malformed",
            format!("`{}` does not start with `op://`", table.path_of("op")),
            "copy the reference from 1Password: `op://vault/item/field`",
        );
        return false;
    };
    let problem = if rest.contains("${") {
        Some("it holds `${`, and references are not interpolated")
    } else if rest.chars().any(char::is_control) {
        Some("it holds a control character")
    } else {
        let segments: Vec<&str> = rest.split('?').next().unwrap_or_default().split('/').collect();
        if !(3..=4).contains(&segments.len()) {
            Some("it needs three or four parts")
        } else if segments.iter().any(|s| s.is_empty()) {
            Some("one of its parts is empty")
        } else {
            None
        }
    };
    if let Some(problem) = problem {
        table.reader.error(
            at.span(),
            "op_reference",
            "A 1Password reference is malformed",
            format!("`{}`: {problem}", quote(text)),
            "write `op://vault/item/field` or `op://vault/item/section/field`",
        );
    }
    problem.is_none()
}
