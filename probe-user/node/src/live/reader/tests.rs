//! A helper that is stopped stands for one that hangs: it does not answer either.

use std::os::unix::net::UnixListener;

use super::*;

fn own(name: &str) -> Responder {
    Responder { name: name.to_owned(), machines: false }
}

impl Reader {
    fn child(&self) -> libc::pid_t {
        self.0.lock().unwrap().child.as_ref().unwrap().pid()
    }

    fn started(&self) -> usize {
        self.0.lock().unwrap().started
    }
}

fn stop(pid: libc::pid_t) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
}

#[test]
fn one_helper_reads_lists_and_connects() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), vec![b'x'; 300_000]).unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let reader = Reader::default();
    let tree = reader.open(dir.path(), own("a")).unwrap();
    assert_eq!(tree.read(Path::new("f"), 300_000).unwrap(), vec![b'x'; 300_000]);
    assert_eq!(tree.read(Path::new("f"), 299_999), Err(Unreadable::TooBig(299_999)));
    assert_eq!(tree.read(Path::new("none"), 10), Err(Unreadable::Missing));
    assert_eq!(tree.read(Path::new("s"), 10), Err(Unreadable::WrongKind("regular file")));
    let mut names = tree.list(Path::new("/"), 10).unwrap();
    names.sort();
    assert_eq!(names, ["f", "s"]);
    let socket = tree.socket(Path::new("s")).unwrap();
    let real = rustix::fs::stat(dir.path().join("s")).unwrap();
    assert_eq!((socket.stat.dev, socket.stat.ino), (real.st_dev, real.st_ino));
    assert_eq!(socket.stat.uid, real.st_uid);
    let _stream = socket.connect().unwrap();
    assert!(listener.accept().is_ok());
    assert_eq!(reader.started(), 1);
}

#[test]
fn a_full_queue_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let reader = Reader::default();
    let socket = reader.open(dir.path(), own("q")).unwrap().socket(Path::new("s")).unwrap();
    let mut kept = Vec::new();
    let refused = (0..10_000).find_map(|_| match socket.connect() {
        Ok(stream) => {
            kept.push(stream);
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(refused, Some(Unreadable::Failed("too many wait there already".to_owned())));
    assert_eq!(reader.started(), 1);
}

#[test]
fn a_command_line_is_cut() {
    let reader = Reader::default();
    let me = std::fs::File::open("/proc/self").unwrap();
    let whole = std::fs::read("/proc/self/cmdline").unwrap();
    assert_eq!(reader.of_process(me.as_fd(), "cmdline", 1 << 20).unwrap(), whole);
    assert_eq!(reader.of_process(me.as_fd(), "cmdline", 3).unwrap(), &whole[..3]);
}

#[test]
fn what_does_not_answer_is_left_behind_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "here").unwrap();
    let reader = Reader::default();
    let of = |name: &str| reader.open(dir.path(), own(name));
    let read = |tree: &RootDirectory| tree.read(Path::new("f"), 10);
    let silent = of("silent").unwrap();
    let helper = reader.child();
    stop(helper);
    assert_eq!(read(&silent), Err(Unreadable::Silent(OTHERS.one)));
    // Not asked again, by this question or, while it waits, by another one.
    let before = Err(Unreadable::LeftOut("it did not answer before".to_owned()));
    assert_eq!(read(&silent), before);
    assert_eq!(of("other").and_then(|tree| read(&tree)), Ok(b"here".to_vec()));
    assert_eq!(reader.started(), 2);
    // Nothing holds this one back: it is gone as soon as it is killed.
    while child::is_waited_for("silent") {
        std::thread::yield_now();
    }
    let next = Reader::default();
    assert!(next.open(dir.path(), own("silent")).is_ok());
    // Together they have so much time, which does not concern what is the machine's.
    stop(reader.child());
    let second = of("second").unwrap_err();
    assert!(matches!(second, Unreadable::Silent(time) if time <= OTHERS.one), "{second}");
    let third = loop {
        match of("third") {
            Ok(_) => stop(reader.child()),
            Err(error @ Unreadable::LeftOut(_)) => break error,
            Err(_) => {}
        }
    };
    assert!(matches!(third, Unreadable::LeftOut(_)), "{third}");
    assert_eq!(
        of("fourth").unwrap_err(),
        Unreadable::LeftOut("too much else did not answer".to_owned())
    );
    let machines = reader.open(dir.path(), Responder::own(dir.path())).unwrap();
    assert_eq!(read(&machines), Ok(b"here".to_vec()));
}

#[test]
fn a_helper_that_somebody_ends_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let reader = Reader::default();
    let tree = reader.open(dir.path(), own("ended")).unwrap();
    let pid = rustix::process::Pid::from_raw(reader.child()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(tree.list(Path::new("/"), 10), Ok(Vec::new()));
    assert_eq!(reader.started(), 2);
}

#[test]
fn a_helper_has_no_descriptor_but_its_channel() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let reader = Reader::default();
    let tree = reader.open(dir.path(), own("descriptors")).unwrap();
    assert!(tree.list(Path::new("/"), 1).is_ok());
    drop(write);
    // Nobody else can write to it any more.
    assert_eq!(rustix::io::read(&read, &mut [0]), Ok(0));
}

#[test]
fn only_what_root_alone_runs_counts_as_the_machines() {
    assert_eq!(uids("Name:\tx\nUid:\t0\t0\t0\t0\n"), Some((0, 0)));
    // A program that anybody may start as root is not root's.
    assert_eq!(uids("Uid:\t1000\t0\t0\t0\n"), Some((1000, 0)));
    assert_eq!(uids("Name:\tx\n"), None);
    // What another user runs counts as that user's.
    let mut theirs = std::process::Command::new("setpriv");
    theirs.args(["--reuid", "65534", "--clear-groups", "sleep", "100"]);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Ok(mut theirs) = theirs.spawn() else { return };
    let path = format!("/proc/{}", theirs.id());
    while !std::fs::read_to_string(format!("{path}/comm")).unwrap().starts_with("sleep") {
        std::thread::yield_now();
    }
    let whose = Responder::process(std::fs::File::open(&path).unwrap().as_fd());
    theirs.kill().unwrap();
    theirs.wait().unwrap();
    assert!(!whose.machines && whose.name.ends_with("of user 65534"), "{whose:?}");
}
