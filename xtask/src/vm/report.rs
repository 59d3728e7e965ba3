//! What the console of a virtual machine says of the tests.

use std::fmt::Write as _;

/// The outcome of one file of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Ignored, or left by the test itself for want of something.
    pub(crate) skipped: usize,
    /// The names of the tests that failed.
    pub(crate) failures: Vec<String>,
    /// How the program ended: nothing when it did not end.
    pub(crate) status: Option<i32>,
    /// Whether the program summed up.
    pub(crate) summed: bool,
}

impl Suite {
    /// Whether it ran to its end, and nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.summed && self.status == Some(0) && self.failed == 0
    }
}

/// What is said of each of `suites`. One of which nothing is said is no success.
pub(crate) fn parse(console: &str, suites: &[&str]) -> Vec<Suite> {
    suites.iter().map(|name| suite(console, name)).collect()
}

fn suite(console: &str, name: &str) -> Suite {
    let begin = format!("%% begin {name}");
    let end = format!("%% end {name} ");
    let mut suite = Suite { name: name.to_owned(), ..Suite::default() };
    // What tests print is not theirs alone: a line may start with what another
    // one, or the kernel, has begun.
    for line in console.lines().skip_while(|line| !line.ends_with(&begin)) {
        if let Some((_, status)) = line.split_once(&end) {
            suite.status = status.trim().parse().ok();
            break;
        }
        if line.contains("SKIPPED: ") {
            suite.skipped += 1;
        }
        if let Some((_, counts)) = line.split_once("test result: ") {
            suite.summed = true;
            let count = |what| count(counts, what);
            let left = suite.skipped;
            suite.failed = count("failed");
            suite.passed = count("passed").saturating_sub(left);
            suite.skipped = left + count("ignored");
        }
        let failed =
            line.split_once("test ").and_then(|(_, rest)| rest.strip_suffix(" ... FAILED"));
        suite.failures.extend(failed.map(str::to_owned));
    }
    suite
}

/// The number before `what` in the line that sums up.
fn count(counts: &str, what: &str) -> usize {
    let part = counts.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
    part.and_then(|part| part.trim().parse().ok()).unwrap_or(0)
}

/// The table of all kernels, with the names of what failed.
pub(crate) fn table(kernels: &[(&str, Vec<Suite>)]) -> String {
    let row = |cells: [&str; 6]| {
        let [kernel, suite, passed, failed, skipped, note] = cells;
        format!("{kernel:<28} {suite:<12} {passed:>6} {failed:>6} {skipped:>7}  {note}")
            .trim_end()
            .to_owned()
    };
    let mut text = row(["kernel", "tests", "passed", "failed", "skipped", ""]);
    for (kernel, suites) in kernels {
        for suite in suites {
            let note = match suite.status {
                _ if suite.is_good() => String::new(),
                None => "NO RESULT: did not end".to_owned(),
                Some(_) if suite.failed > 0 => format!("FAILED: {}", suite.failures.join(", ")),
                Some(status) => format!("NO RESULT: ended with {status}"),
            };
            let [passed, failed, skipped] =
                [suite.passed, suite.failed, suite.skipped].map(|count| count.to_string());
            let _infallible =
                write!(text, "\n{}", row([kernel, &suite.name, &passed, &failed, &skipped, &note]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    0.000000] Linux version 6.1\n\
        %% begin kernel\n\
        \n\
        running 3 tests\n\
        SKIPPED: this kernel has no wireguard\n\
        test a_vxlan ... ok\n\
        test a_wireguard ... ok\n\
        test a_geneve ... ignored\n\
        \n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 3.1s\n\
        \n\
        %% end kernel 0\n\
        %% begin sockets\n\
        running 2 tests\n\
        test shared ... FAILED\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
        %% end sockets 101\n\
        %% begin lab\n\
        running 1 test\n";

    #[test]
    fn counts_are_read_for_each_suite() {
        let suites = parse(CONSOLE, &["kernel", "sockets", "lab", "probe"]);
        let counts: Vec<_> = suites.iter().map(|s| (s.passed, s.failed, s.skipped)).collect();
        assert_eq!(counts, [(1, 0, 2), (1, 1, 0), (0, 0, 0), (0, 0, 0)]);
        assert_eq!(suites[1].failures, ["shared"]);
        let good: Vec<_> = suites.iter().map(Suite::is_good).collect();
        assert_eq!(good, [true, false, false, false]);
    }

    #[test]
    fn a_program_that_dies_before_it_sums_up_is_no_success() {
        let suites = parse("%% begin lab\nrunning 1 test\n%% end lab 0\n", &["lab"]);
        assert!(!suites[0].is_good());
        let suites = parse("%% begin lab\n%% end lab 127\n", &["lab"]);
        assert!(table(&[("6.1", suites)]).contains("NO RESULT: ended with 127"));
    }

    #[test]
    fn the_table_names_what_failed() {
        let text = table(&[("6.1.0-cloud", parse(CONSOLE, &["kernel", "sockets", "lab"]))]);
        let lines: Vec<_> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "kernel tests passed failed skipped",
                "6.1.0-cloud kernel 1 0 2",
                "6.1.0-cloud sockets 1 1 0 FAILED: shared",
                "6.1.0-cloud lab 0 0 0 NO RESULT: did not end"
            ]
        );
    }
}
