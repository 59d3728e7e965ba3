//! The running kernel's file, and other kernels' that a variable names.

use std::path::PathBuf;
use std::time::Instant;

use super::super::{DIRECTORY, Part, read};

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
                assert!(layout.refusal(Part::Sockets).is_none());
                since.elapsed()
            })
            .collect();
        let first = times[0];
        times.sort();
        eprintln!("{}: first {first:?}, median {:?}", directory.display(), times[15]);
        eprintln!("{:#?}", read(&directory, &["bpf_iter_task_file", "bpf_iter_task"]));
    }
}
