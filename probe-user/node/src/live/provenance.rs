//! Where a process comes from: the package that has its executable, and the git repository of
//! its working directory. Both are looked up in the process's own root, by the helper.

use std::path::{Path, PathBuf};

use super::LiveNode;
use super::reader::RootDirectory;
use super::safefs::Unreadable;
use whereis_port_model::{
    Package, PackageManager, Pid, Process, Provenance, Read, Repository, SocketUnit, apk_owner,
    checked_out,
};

/// How many directories are looked into for a repository, from the working directory upwards.
const DEPTH: usize = 32;
/// How much of a file of git's is read.
const GIT: usize = 4 << 10;
/// How much is read of dpkg's lists in all, and of apk's database.
const LISTS: usize = 64 << 20;
/// How many entries a directory of lists or of units may have.
const ENTRIES: usize = 50_000;
/// How much of a unit's file is read, and how many units.
const UNIT: usize = 64 << 10;
const UNITS: usize = 1024;

/// Where package managers keep what they know.
const DPKG: &str = "var/lib/dpkg/info";
const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
const RPM: [&str; 2] = ["var/lib/rpm", "usr/lib/sysimage/rpm"];

/// Where units of the system are, what counts first first (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 9] = [
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

impl LiveNode {
    /// What the files around a process say of it.
    pub(super) fn provenance_of(&self, pid: Pid) -> Read<Option<Provenance>> {
        let Some(process) = self.process(pid) else { return Read::default() };
        let Some(_reading) = self.timeout.begin() else { return Read::default() };
        let root = self.root.join(pid.to_string());
        // What is not readable is not told: nothing depends on it.
        let Ok(tree) = self.reader.root_of(&root) else { return Read::default() };
        let found = Provenance {
            package: package(&tree.part("packages"), &process),
            repository: process.cwd.as_deref().and_then(|cwd| repository(&tree.part("git"), cwd)),
        };
        Read::whole(Some(found))
    }

    /// The socket units of this system, by their files.
    pub(super) fn units_of_sockets(&self) -> Read<Vec<SocketUnit>> {
        let root = Path::new("/");
        let whose = super::reader::Responder::own(root).part("units");
        let Ok(tree) = self.reader.open(root, whose) else { return Read::default() };
        Read::whole(socket_units(&tree))
    }
}

/// Whether a package manager has a say in what is there.
fn is_managed(exe: &str) -> bool {
    let managed = ["/usr/", "/bin/", "/sbin/", "/lib", "/opt/", "/etc/"];
    managed.iter().any(|place| exe.starts_with(place)) && !exe.starts_with("/usr/local/")
}

fn package(tree: &RootDirectory, process: &Process) -> Option<Package> {
    let exe = process.exe.as_deref().filter(|exe| is_managed(exe))?;
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
    // Where /bin is a link to /usr/bin, lists may have either name.
    let other = match exe.strip_prefix("/usr") {
        Some(rest) if rest.starts_with(['/']) => rest.to_owned(),
        _ => format!("/usr{exe}"),
    };
    let hint = Path::new(exe).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let told = |manager, name| Some(Package { manager, name: Some(name), why: None });
    let untold = |manager, why: String| Some(Package { manager, name: None, why: Some(why) });
    match tree.find_line(Path::new(DPKG), ".list", hint, [exe, &other], LISTS) {
        Ok(Some(list)) => {
            let name = list.strip_suffix(".list").unwrap_or(&list);
            let name = name.split_once(':').map_or(name, |(name, _)| name);
            return told(PackageManager::Dpkg, name.to_owned());
        }
        // dpkg is here, and none of its packages has it.
        Ok(None) => return None,
        Err(Unreadable::Missing) => {}
        Err(error) => return untold(PackageManager::Dpkg, error.to_string()),
    }
    for database in APK {
        match tree.read(Path::new(database), LISTS) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                let name = apk_owner(&text, exe).or_else(|| apk_owner(&text, &other))?;
                return told(PackageManager::Apk, name);
            }
            Err(Unreadable::Missing) => {}
            Err(error) => return untold(PackageManager::Apk, error.to_string()),
        }
    }
    let is_there = |place: &&str| tree.owner(Path::new(*place)).is_ok();
    RPM.into_iter().find(is_there).and_then(|place| {
        let why = format!("the database of rpm in /{place} is not read: rpm -qf {exe} tells");
        untold(PackageManager::Rpm, why)
    })
}

/// The repository that a directory is in.
fn repository(tree: &RootDirectory, cwd: &str) -> Option<Repository> {
    let cwd = Path::new(cwd.strip_suffix(" (deleted)").unwrap_or(cwd));
    for directory in cwd.ancestors().take(DEPTH) {
        // What is kept below the root itself is no project.
        directory.parent()?;
        let git = directory.join(".git");
        let head = match tree.read(&git.join("HEAD"), GIT) {
            Ok(head) => head,
            // A worktree, or a submodule: a file that says where the rest is.
            Err(_) => match tree.read(&git, GIT) {
                Ok(link) => {
                    let link = String::from_utf8(link).ok()?;
                    let place = link.trim_end().strip_prefix("gitdir: ")?;
                    tree.read(&directory.join(PathBuf::from(place)).join("HEAD"), GIT).ok()?
                }
                Err(Unreadable::Missing | Unreadable::WrongKind(_)) => continue,
                Err(_) => return None,
            },
        };
        let head = String::from_utf8(head).ok()?;
        return checked_out(directory.to_str()?, &head);
    }
    None
}

fn socket_units(tree: &RootDirectory) -> Vec<SocketUnit> {
    let mut units: Vec<SocketUnit> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for directory in UNIT_DIRECTORIES {
        let Ok(mut names) = tree.list(Path::new(directory), ENTRIES) else { continue };
        names.sort_unstable();
        let names = names.iter().filter_map(|name| name.to_str());
        for name in names.filter(|name| name.ends_with(".socket")) {
            if seen.len() >= UNITS || seen.iter().any(|known| known == name) {
                continue;
            }
            seen.push(name.to_owned());
            let file = Path::new(directory).join(name);
            // One that is masked is a link to /dev/null, and none.
            let Ok(text) = tree.read(&file, UNIT) else { continue };
            let mut texts = vec![String::from_utf8_lossy(&text).into_owned()];
            texts.extend(drop_ins(tree, name));
            units.extend(SocketUnit::parse(name, &format!("/{}", file.display()), &texts));
        }
    }
    units.sort_by(|a, b| a.name.cmp(&b.name));
    units
}

/// What changes a unit: each file counts once, by its name, in the order of their names.
fn drop_ins(tree: &RootDirectory, unit: &str) -> Vec<String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for directory in UNIT_DIRECTORIES {
        let directory = Path::new(directory).join(format!("{unit}.d"));
        let Ok(names) = tree.list(&directory, UNITS) else { continue };
        let names = names.iter().filter_map(|name| name.to_str());
        for name in names.filter(|name| name.ends_with(".conf")) {
            if found.iter().all(|(known, _)| known != name)
                && let Ok(text) = tree.read(&directory.join(name), UNIT)
            {
                found.push((name.to_owned(), String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, text)| text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> (tempfile::TempDir, RootDirectory) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in all {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let tree = RootDirectory::at(dir.path());
        (dir, tree)
    }

    fn process(exe: &str) -> Process {
        let text = format!(
            r#"{{"pid":1,"start":1,"started_at":null,"comm":"x","cmdline":[],"exe":"{exe}","cwd":null,
                "uid":0,"user":null,"nspid":[1],"netns":null,"cgroup":null,"ancestors":[]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn packages_are_found_by_their_lists() {
        let (_dir, tree) = files(&[
            ("var/lib/dpkg/info/nginx-core.list", "/.\n/usr\n/usr/sbin\n/usr/sbin/nginx\n"),
            ("var/lib/dpkg/info/libx:amd64.list", "/.\n/bin/x\n/usr/sbin/nginx-debug\n"),
            ("var/lib/dpkg/info/nginx-core.md5sums", "/usr/sbin/other\n"),
        ]);
        let of = |exe: &str| package(&tree, &process(exe)).and_then(|found| found.name);
        assert_eq!(of("/usr/sbin/nginx").as_deref(), Some("nginx-core"));
        assert_eq!(of("/usr/sbin/nginx (deleted)").as_deref(), Some("nginx-core"));
        assert_eq!(of("/usr/bin/x").as_deref(), Some("libx"));
        assert_eq!(of("/usr/sbin/other"), None);
        assert_eq!(of("/usr/local/bin/x"), None);
        let (_dir, tree) =
            files(&[("lib/apk/db/installed", "P:busybox\nF:bin\nR:busybox\n\nP:y\nF:bin\n")]);
        let found = package(&tree, &process("/bin/busybox")).unwrap();
        assert_eq!((found.manager, found.name.as_deref()), (PackageManager::Apk, Some("busybox")));
        let (_dir, tree) = files(&[("var/lib/rpm/rpmdb.sqlite", "x")]);
        let found = package(&tree, &process("/usr/bin/y")).unwrap();
        assert_eq!((found.manager, found.name), (PackageManager::Rpm, None));
        assert!(found.why.unwrap().contains("rpm -qf /usr/bin/y"));
    }

    #[test]
    fn repositories_are_found_above_the_working_directory() {
        let (dir, tree) = files(&[
            ("home/a/app/.git/HEAD", "ref: refs/heads/main\n"),
            ("home/a/app/src/deep/x", ""),
            ("home/a/work/.git", "gitdir: ../app/.git/worktrees/work\n"),
            ("home/a/app/.git/worktrees/work/HEAD", "ref: refs/heads/side\n"),
            ("home/a/bad/.git/HEAD", "nonsense"),
            (".git/HEAD", "ref: refs/heads/root\n"),
        ]);
        let of = |cwd: &str| {
            let found = repository(&tree, cwd)?;
            Some(format!("{} {}", found.directory, found.branch.unwrap_or_default()))
        };
        assert_eq!(of("/home/a/app/src/deep").as_deref(), Some("/home/a/app main"));
        assert_eq!(of("/home/a/app").as_deref(), Some("/home/a/app main"));
        assert_eq!(of("/home/a/work").as_deref(), Some("/home/a/work side"));
        assert_eq!(of("/home/a/bad"), None);
        assert_eq!(of("/home/a"), None);
        assert_eq!(of("/"), None);
        // What is no file, or leads out, tells nothing.
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("home/HEAD")).unwrap();
        assert_eq!(of("/home"), None);
    }

    #[test]
    fn units_come_from_where_systemd_takes_them() {
        let (dir, tree) = files(&[
            ("usr/lib/systemd/system/a.socket", "[Socket]\nListenStream=1\n"),
            ("etc/systemd/system/a.socket", "[Socket]\nListenStream=2\n"),
            ("etc/systemd/system/b.socket.d/y.conf", "[Socket]\nListenStream=4\n"),
            ("usr/lib/systemd/system/b.socket", "[Socket]\nListenStream=3\nService=c.service\n"),
            ("usr/lib/systemd/system/c.service", "[Service]\n"),
            ("usr/lib/systemd/system/d.socket", "[Socket]\nListenStream=5\n"),
        ]);
        std::os::unix::fs::symlink("/dev/null", dir.path().join("etc/systemd/system/d.socket"))
            .unwrap();
        let units = socket_units(&tree);
        let told: Vec<String> =
            units.iter().map(|u| format!("{} {} {}", u.name, u.service, u.listens.len())).collect();
        assert_eq!(told, ["a.socket a.service 1", "b.socket c.service 2"]);
        assert_eq!(units[0].file, "/etc/systemd/system/a.socket");
    }
}
