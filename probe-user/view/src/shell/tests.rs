use std::process::Command as Program;

use super::*;
use crate::Style;
use crate::layout::TextPage;
use crate::style::Ink;

/// Names that mean something to a shell, a terminal or an option parser.
const HOSTILE: [&str; 32] = [
    "web",
    "",
    " ",
    "a b",
    "a  b ",
    "$(touch pwned)",
    "`touch pwned`",
    "x;touch pwned;#",
    "'",
    "''",
    "a'b",
    "\"",
    "a\"$x\"b",
    "\\",
    "a\\",
    "-rf",
    "--",
    "-",
    "~",
    "~root",
    "*",
    "?",
    "[a]",
    "{a,b}",
    "a=b",
    "#x",
    "!",
    "!!",
    "&",
    "|x",
    "a>b",
    "\u{fffd}é日本",
];

/// What a shell makes of a line: its words, each ended by a NUL.
fn words(line: &str) -> Vec<String> {
    let parses = Program::new("sh").args(["-n", "-c", line]).status().unwrap();
    assert!(parses.success(), "sh -n: {line}");
    let script = format!("set -- {line}\nfor a; do printf '%s\\0' \"$a\"; done");
    let out = Program::new("sh").args(["-c", &script]).current_dir("/").output().unwrap();
    assert!(out.status.success(), "{line}: {out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// A few names made of pieces of hostile ones, the same in each run.
fn made(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let long = next(5) + 1;
    (0..long).map(|_| HOSTILE[next(HOSTILE.len())]).collect()
}

fn command(names: &[String]) -> Command {
    let first = Command::new("docker exec").name(names[0].as_str());
    names[1..].iter().fold(first, |command, name| command.arg(name.as_str()))
}

#[test]
fn a_shell_gets_back_every_word_unchanged() {
    let mut names: Vec<String> = HOSTILE.map(str::to_owned).to_vec();
    names.extend((0..400).map(made));
    for some in names.chunks(3) {
        let command = command(some);
        assert_eq!(words(&line(&command).unwrap()), command.words());
    }
}

#[test]
fn the_line_of_a_narrow_page_is_still_one_command() {
    for width in [None, Some(40), Some(80)] {
        let style = Style { width, ..Style::PLAIN };
        for some in (0..60).map(|at| [made(at), made(at + 100)]) {
            let command = command(&some);
            let advice =
                Advice::from("some words in front of a command: ").command(command.clone());
            let mut page = TextPage::new(&style);
            page.entry("  ", ("noticed:", 21, Ink::Warn), &style.advice(&advice));
            let text = page.finish();
            let lines: Vec<&str> =
                text.lines().filter(|line| line.contains("docker exec")).collect();
            let [shown] = lines[..] else { panic!("{text}") };
            let at = shown.find("docker exec").unwrap();
            // A line has no spaces at its end, and a quoted word ends with its quote.
            assert_eq!(words(&shown[at..]), command.words(), "{text}");
        }
    }
}

#[test]
fn what_can_not_be_shown_as_it_is_makes_no_command() {
    for name in ["a\nb", "a\tb", "\u{1b}[31m", "a\u{202e}b", "a\u{200b}b", "\0", "a\u{fdd0}b"] {
        let advice = Advice::from("look: ").command(Command::new("docker exec").name(name));
        assert_eq!(line(&Command::new("docker exec").name(name)), None, "{name:?}");
        for shown in [text(&advice), Style::PLAIN.advice(&advice)] {
            assert_eq!(shown, format!("look: {LEFT_OUT}"));
        }
    }
    // Where not all characters can be shown, neither can a command with them.
    let ascii = Style { unicode: false, ..Style::PLAIN };
    let advice = Advice::new().command(Command::new("docker exec").name("é"));
    assert_eq!(ascii.advice(&advice), LEFT_OUT);
    assert_eq!(line(&Command::new("docker exec").name("a".repeat(4000))), None);
    assert_eq!(line(&Command::new("a=b c")), None);
}

#[test]
fn a_name_among_words_is_quoted_like_one_in_a_command() {
    let advice = Advice::from("recreate container ").name("$(touch pwned)").words(" anew");
    assert_eq!(text(&advice), "recreate container '$(touch pwned)' anew");
    assert_eq!(Style::PLAIN.advice(&advice).replace('\u{fdd0}', " "), text(&advice));
}
