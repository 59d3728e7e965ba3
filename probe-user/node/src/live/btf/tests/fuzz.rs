//! Damaged files: whatever is in them, the reader ends, and soon.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::DIRECTORY;
use super::super::offsets::find;
use super::made::{kernel, module};

/// Xorshift: the same damage for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit.max(1)
    }
}

/// Changes up to eight places within the first `reach` bytes, and says how to undo it.
fn damage(bytes: &mut [u8], reach: usize, random: &mut Random) -> Vec<(usize, u8)> {
    let mut before = Vec::new();
    for _ in 0..=random.below(8) {
        let word = [0, 1, 12, 0xffff, 0x7fff_ffff, u32::MAX, random.below(1 << 32) as u32];
        let word = word[random.below(word.len())].to_ne_bytes();
        // Every other time the header, or a single byte.
        let at = if random.below(4) == 0 { random.below(24) } else { random.below(reach) };
        let count = if random.below(2) == 0 { 1 } else { 4 };
        for (at, byte) in (at..bytes.len()).zip(&word[..count]) {
            before.push((at, bytes[at]));
            bytes[at] = *byte;
        }
    }
    before
}

/// Returns how many files were tried.
fn run(for_time: Duration, seed: u64) -> usize {
    let (base, since) = (kernel(), Instant::now());
    let (whole, split) = (base.bytes(), module(&base).bytes());
    let live = std::fs::read(Path::new(DIRECTORY).join("vmlinux")).unwrap_or_default();
    // The real file's beginning as a file of its own: fast enough for many tries.
    let types = live.len().min(200_000);
    let mut files =
        [(whole.clone(), true), (split, true), (live[..types].to_vec(), false), (live, false)];
    let mut tries = 0;
    while since.elapsed() < for_time {
        let mut random = Random(seed.wrapping_add(tries as u64).wrapping_mul(0x9e37_79b9) | 1);
        let which = if tries % 64 == 63 { 3 } else { tries % 3 };
        let (file, is_made) = &mut files[which];
        tries += 1;
        if file.is_empty() {
            continue;
        }
        let reach = file.len();
        let mut before = damage(file, reach, &mut random);
        if which == 2 {
            // Its strings lie behind the end: the types are taken for them too.
            for (at, word) in [(8, 0), (12, reach as u32 - 24), (16, 0), (20, reach as u32 - 24)] {
                for (at, byte) in (at..).zip(u32::to_ne_bytes(word)) {
                    before.push((at, file[at]));
                    file[at] = byte;
                }
            }
        }
        let cut = if *is_made && random.below(4) == 0 { random.below(reach) } else { reach };
        let started = Instant::now();
        let bytes = &file[..cut];
        let outcome = std::panic::catch_unwind(|| match which {
            1 => find(&whole, || Some(bytes.to_vec()), &["bpf_iter_task"]).is_ok(),
            _ => find(bytes, || Some(bytes.to_vec()), &["bpf_iter_task"]).is_ok(),
        });
        let took = started.elapsed();
        assert!(outcome.is_ok(), "panicked: file {which}, seed {seed}, try {}", tries - 1);
        // Wide enough for a loaded machine; an endless loop is what it is about.
        assert!(took < Duration::from_secs(20), "{took:?}: file {which}, seed {seed}, try {tries}");
        for (at, byte) in before.into_iter().rev() {
            file[at] = byte;
        }
    }
    tries
}

#[test]
fn damaged_files_do_no_harm() {
    let tries = run(Duration::from_secs(2), 1);
    assert!(tries > 100, "only {tries} files");
}

#[test]
#[ignore = "runs for as many seconds as WHEREIS_PORT_FUZZ_SECONDS says, 60 without it"]
fn damaged_files_do_no_harm_for_long() {
    let seconds = std::env::var("WHEREIS_PORT_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = seed.as_nanos() as u64;
    let tries = run(Duration::from_secs(seconds.unwrap_or(60)), seed);
    eprintln!("{tries} files, seed {seed}");
}
