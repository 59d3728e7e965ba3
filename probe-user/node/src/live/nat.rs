//! Which modules the kernel has, so that none is loaded just to be asked.

use super::files;

/// Whether the kernel has this module loaded or built in. Asking one that has
/// not would make it load the module, and reading must not change the node.
/// Where that can't be told (no list of what is built in) it is asked.
pub(super) fn has_module(name: &str) -> bool {
    // Without this file the kernel has no modules to load.
    let Ok(modules) = files::text("/proc/modules", files::TABLE) else { return true };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let builtin = files::text(format!("/lib/modules/{release}/modules.builtin"), files::TABLE);
    is_listed(name, &modules, builtin.ok().as_deref())
}

fn is_listed(name: &str, modules: &str, builtin: Option<&str>) -> bool {
    let file = format!("/{name}.ko");
    modules.lines().any(|line| line.split(' ').next() == Some(name))
        || builtin.is_none_or(|list| list.lines().any(|path| path.ends_with(&file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_not_loaded_just_to_ask_it() {
        let loaded = "nf_tables 300000 0 - Live 0x0\n";
        let other = "nf_conntrack 200000 1 - Live 0x0\n";
        let built_in = "kernel/net/netfilter/nf_tables.ko\n";
        assert!(is_listed("nf_tables", loaded, Some("")));
        assert!(is_listed("nf_tables", other, Some(built_in)));
        assert!(is_listed("nf_tables", other, None));
        assert!(!is_listed("nf_tables", other, Some("kernel/net/netfilter/nf_conntrack.ko\n")));
    }
}
