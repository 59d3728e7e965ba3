use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::PathBuf;

use super::*;

/// Mounts without anything that is not trusted, but for `kind` at `point`.
fn mounts(lines: &str) -> MountView {
    MountView::parse(lines.as_bytes(), b"")
}

/// Why nothing at `path` may be looked at.
fn why(mounts: &MountView, path: &str) -> Option<String> {
    mounts.at(Path::new(path)).err()
}

#[test]
fn only_what_the_kernel_serves_for_root_is_looked_at() {
    let table = "\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /home/ann/.kube rw,nosuid,nodev - fuse.fusd fusd rw,user_id=1000,allow_other
31 22 0:41 / /home/nfs rw - nfs4 server:/home rw
32 22 0:42 / /home/auto rw - autofs systemd-1 rw
33 22 7:3 / /home/ann/image rw,nosuid,nodev shared:3 - ext4 /dev/loop3 rw
34 22 8:17 / /run/media/ann/usb rw,nosuid,nodev - vfat /dev/sdb1 rw
35 22 8:33 / /media/stick rw,nosuid,nodev - ext4 /dev/sdc1 rw
36 22 8:49 / /home rw,nosuid,nodev - ext4 /dev/sdd1 rw
37 22 7:4 / /snap/core ro,nodev - squashfs /dev/loop4 ro
38 22 0:50 / /etc ro - overlay overlay ro,lowerdir=/usr/share/etc:/usr/etc
39 22 0:51 / /srv rw - overlay overlay rw,lowerdir=/home/ann/.kube/x,upperdir=/var/up,workdir=/var/w
40 22 0:4 / /proc rw - proc proc rw
41 22 8:65 / /data rw,nosuid,nodev - ext4 /dev/sde1 rw
";
    let notes = "SRC=/dev/sde1 TARGET=/data ROOT=/ OPTS=uhelper=udisks2\n";
    let mounts = MountView::parse(table.as_bytes(), notes.as_bytes());
    for path in ["/", "/home", "/snap/core", "/etc", "/nothing/is/mounted/here"] {
        assert_eq!(why(&mounts, path), None, "{path}");
    }
    for (path, part) in [
        ("/home/ann/.kube", "fuse.fusd"),
        ("/home/nfs", "nfs4"),
        ("/home/auto", "autofs"),
        ("/home/ann/image", "a user mounted"),
        ("/run/media/ann/usb", "vfat"),
        ("/media/stick", "a user mounted"),
        ("/srv", "fuse.fusd"),
        ("/proc", "proc"),
        ("/data", "a user mounted"),
    ] {
        assert!(why(&mounts, path).is_some_and(|why| why.contains(part)), "{path}");
    }
    // What was mounted last is what is there.
    let over = mounts_over();
    assert!(why(&over, "/home").is_some());
}

fn mounts_over() -> MountView {
    mounts("22 1 8:1 / /home rw - ext4 /dev/sda1 rw\n23 22 0:9 / /home rw - fuse x rw\n")
}

#[test]
fn an_open_file_is_known_by_its_mount() {
    let own = MountView::read().unwrap();
    let file = tempfile::tempfile().unwrap();
    assert_eq!(own.holds(file.as_fd()), Ok(()));
    let proc = File::open("/proc/self/stat").unwrap();
    assert!(own.holds(proc.as_fd()).unwrap_err().contains("proc"));
    // A mount that is not in the table came later.
    assert!(mounts("1 1 8:1 / / rw - ext4 x rw\n").holds(proc.as_fd()).is_err());
}

/// A home of user 4243 in a directory of root's, and what a walk to a path in it says.
struct Home {
    _dir: tempfile::TempDir,
    home: PathBuf,
}

const ANN: u32 = 4243;

impl Home {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("ann");
        std::fs::create_dir_all(home.join(".kube")).unwrap();
        std::fs::write(home.join(".kube/config"), "x").unwrap();
        for path in ["", ".kube", ".kube/config"] {
            chown(home.join(path), Some(ANN), None).unwrap();
        }
        Some(Self { _dir: dir, home })
    }

    fn author(&self, path: &str) -> Result<Author, String> {
        open(&self.home.join(path)).map(|opened| opened.author).map_err(|why| why.to_string())
    }

    fn config(&self) -> PathBuf {
        self.home.join(".kube/config")
    }

    fn refused(&self, why: &str) {
        let said = self.author(".kube/config").unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_file_is_of_who_owns_it_and_the_way_to_it() {
    let Some(home) = Home::new() else { return };
    assert_eq!(home.author(".kube/config"), Ok(Author::User(ANN)));
    // Root's file in a directory of hers: she may have put it there.
    chown(home.config(), Some(0), None).unwrap();
    assert_eq!(home.author(".kube/config"), Ok(Author::User(ANN)));
    // A third one's.
    chown(home.config(), Some(ANN + 1), None).unwrap();
    home.refused("several users");
    let roots = home.home.parent().unwrap().join("roots");
    std::fs::write(&roots, "x").unwrap();
    assert_eq!(home.author("../roots"), Ok(Author::Own));
    // Root's file where everybody may put something.
    let shared = home.home.parent().unwrap().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::write(shared.join("x"), "x").unwrap();
    assert_eq!(home.author("../shared/x"), Ok(Author::Anybody));
    assert!(is_roots(&shared.join("x")).is_err());
    assert!(is_roots(&roots).is_ok());
}

#[test]
fn links_of_others_are_not_followed() {
    let Some(home) = Home::new() else { return };
    let roots = home.home.parent().unwrap().join("roots");
    std::fs::write(&roots, "x").unwrap();
    std::fs::remove_file(home.config()).unwrap();
    symlink(&roots, home.config()).unwrap();
    home.refused("is a link");
    std::fs::remove_file(home.config()).unwrap();
    std::fs::hard_link(&roots, home.config()).unwrap();
    home.refused("hard links");
    // Hers to hers, too: where it leads could change.
    std::fs::rename(home.home.join(".kube"), home.home.join("dot")).unwrap();
    symlink("dot", home.home.join(".kube")).unwrap();
    home.refused("is a link");
    // Root's own links are: /home is one on some systems.
    symlink("ann", home.home.parent().unwrap().join("link")).unwrap();
    std::fs::remove_file(home.home.join("dot/config")).unwrap();
    std::fs::write(home.home.join("dot/config"), "x").unwrap();
    assert_eq!(home.author("../link/dot/config"), Ok(Author::User(ANN)));
    let own = home.home.parent().unwrap().join("self");
    symlink("self", &own).unwrap();
    assert!(home.author("../self").unwrap_err().contains("is a link"));
}

#[test]
fn what_others_can_write_is_not_read() {
    let Some(home) = Home::new() else { return };
    let mode = |path: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(home.home.join(path), mode).unwrap();
    };
    for (path, open, shut) in
        [(".kube/config", 0o620, 0o600), (".kube", 0o775, 0o755), ("", 0o757, 0o755)]
    {
        mode(path, open);
        home.refused("can be written by others");
        mode(path, shut);
        assert_eq!(home.author(".kube/config"), Ok(Author::User(ANN)));
    }
}

#[test]
fn only_a_regular_file_of_a_disk_is_opened() {
    let Some(home) = Home::new() else { return };
    for (path, why) in [
        ("/dev/zero", "no local file system"),
        ("/proc/1/cmdline", "no local file system"),
        ("/", "regular"),
        ("/etc", "regular"),
        ("/etc/passwd/x", "no such file"),
        ("/nowhere/config", "no such file"),
    ] {
        // Of a name that is absolute, what is in front is forgotten.
        let said = home.author(path).unwrap_err();
        assert!(said.contains(why) || path == "/dev/zero", "{path}: {said}");
    }
    assert_eq!(home.author("/etc/passwd"), Ok(Author::Own));
}
