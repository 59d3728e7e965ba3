//! The running kernel's file, and other kernels' that a variable names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::super::{DIRECTORY, ProbePart, read};

/// Directories with a `vmlinux` file each: `WHEREIS_PORT_BTF=DIR:DIR`.
fn others() -> Vec<PathBuf> {
    std::env::var_os("WHEREIS_PORT_BTF").iter().flat_map(std::env::split_paths).collect()
}

#[test]
#[ignore = "prints times; run it in a release build"]
fn how_long_it_takes() {
    for directory in others().into_iter().chain([PathBuf::from(DIRECTORY)]) {
        let mut times: Vec<_> = (0..30)
            .map(|_| {
                let since = Instant::now();
                let layout = read(&directory, &["bpf_iter_task_file", "bpf_iter_task"]);
                assert!(layout.refusal(ProbePart::Sockets).is_none());
                since.elapsed()
            })
            .collect();
        let first = times[0];
        times.sort();
        eprintln!("{}: first {first:?}, median {:?}", directory.display(), times[15]);
        eprintln!("{:#?}", read(&directory, &["bpf_iter_task_file", "bpf_iter_task"]));
    }
}

#[test]
fn the_running_kernel_has_every_field() {
    if !Path::new(DIRECTORY).join("vmlinux").exists() {
        eprintln!("SKIPPED: this kernel has no BTF");
        return;
    }
    for directory in others().into_iter().chain([PathBuf::from(DIRECTORY)]) {
        let layout = read(&directory, &["bpf_iter_task_file", "bpf_iter_task"]);
        let o = layout.offsets;
        for part in [ProbePart::Sockets, ProbePart::Tasks, ProbePart::Listen, ProbePart::Bind] {
            assert_eq!(layout.refusal(part), None, "{}: {part}", directory.display());
        }
        assert!(layout.functions.iter().all(Option::is_some), "{:?}", layout.functions);
        // `struct sock_common` says so in comments: these lie together since Linux 3.9.
        assert_eq!([o.sock_daddr, o.sock_rcv_saddr, o.sock_dport, o.sock_num], [0, 4, 12, 14]);
        assert_eq!([o.sock_family, o.sock_state, o.sock_bound_dev_if], [16, 18, 20]);
        assert_eq!(o.task_tgid, o.task_pid + 4);
        assert_eq!([o.upid_nr, o.upid_ns, o.upid_size], [0, 8, 16]);
    }
}

#[test]
fn another_reader_finds_the_same() {
    let vmlinux = Path::new(DIRECTORY).join("vmlinux");
    let output = Command::new("bpftool")
        .args(["btf", "dump", "file", &vmlinux.display().to_string(), "format", "raw"])
        .output();
    let Some(output) = output.ok().filter(|o| o.status.success()) else {
        eprintln!("SKIPPED: no bpftool here, or no BTF");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let offset = |of: &str, member: &str| {
        let head = format!("] STRUCT '{of}' ");
        let mut lines = text.lines().skip_while(|line| !line.contains(&head)).skip(1);
        let name = format!("'{member}' type_id=");
        let line = lines.by_ref().take_while(|l| l.starts_with('\t')).find(|l| l.contains(&name));
        let bits = line?.split_once("bits_offset=")?.1.split(' ').next()?.parse::<u32>().ok()?;
        Some(bits / 8)
    };
    let layout = read(Path::new(DIRECTORY), &["bpf_iter_task_file"]);
    let mut compared = 0;
    for row in super::super::table::ROWS.iter().filter(|row| !row.path.contains(['.', '|'])) {
        let mut offsets = layout.offsets;
        let found = *(row.slot)(&mut offsets);
        // What is inside of anonymous structs is not in this line of the other's.
        if let Some(other) = offset(row.of, row.path) {
            assert_eq!(found, other, "{}.{}", row.of, row.path);
            compared += 1;
        }
    }
    assert!(compared > 15, "only {compared} compared");
    let id = layout.functions[0].unwrap();
    assert!(text.contains(&format!("[{id}] FUNC 'bpf_iter_task_file' ")));
}
