//! What the README and the book in `docs/src` show: every example is run, and every option of
//! the commands in them exists.
//!
//! A block marked `console` has commands, each on a line that begins with `$ `, and what they
//! print. A comment `<!-- recorded: NAME -->` before it puts its questions to `data/NAME.json`;
//! without one a command names a recorded node itself. Blocks marked `text` show what can't
//! be replayed, and those marked `sh` have commands alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use lab::Test;

/// A block of code on a page.
struct Block<'a> {
    language: &'a str,
    /// The recorded node that its questions are for.
    recorded: Option<&'a str>,
    /// The first line of its content, and the one after the last, from 0.
    begin: usize,
    end: usize,
}

#[test]
fn the_book_shows_what_the_tool_prints() -> Test {
    let shell = Shell::new()?;
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let (mut problems, mut examples) = (Vec::new(), 0);
    for page in pages()? {
        let text = std::fs::read_to_string(&page)?;
        let lines: Vec<&str> = text.lines().collect();
        let (mut written, mut from) = (String::new(), 0);
        for block in blocks(&lines)? {
            if block.language != "console" {
                continue;
            }
            push(&mut written, &lines[from..block.begin]);
            let content = &lines[block.begin..block.end];
            ensure!(
                content.first().is_some_and(|line| line.starts_with("$ ")),
                "{}, line {}: an example begins with its command",
                page.display(),
                block.begin + 1
            );
            let starts =
                (0..content.len()).filter(|at| content[*at].starts_with("$ ")).collect::<Vec<_>>();
            for (at, start) in starts.iter().enumerate() {
                let end = starts.get(at + 1).copied().unwrap_or(content.len());
                let command = &content[*start][2..];
                let shown = content[start + 1..end].join("\n");
                examples += 1;
                let Some(printed) = shell
                    .run(command, block.recorded)
                    .with_context(|| format!("{}: {command}", page.display()))?
                else {
                    push(&mut written, &content[*start..end]);
                    continue;
                };
                if printed.trim_end_matches('\n') != shown {
                    problems.push(format!(
                        "{}: {command}: {}",
                        page.display(),
                        super::changed(&shown, &printed)
                    ));
                }
                push(&mut written, &[content[*start]]);
                push(&mut written, &printed.lines().collect::<Vec<_>>());
            }
            from = block.end;
        }
        push(&mut written, &lines[from..]);
        if update {
            std::fs::write(&page, written)?;
        }
    }
    ensure!(examples >= 20, "only {examples} examples were found");
    ensure!(
        update || problems.is_empty(),
        "cargo xtask docs --write writes them:\n{}",
        problems.join("\n\n")
    );
    Ok(())
}

#[test]
fn the_book_names_options_that_exist() -> Test {
    let shell = Shell::new()?;
    let (mut problems, mut tried) = (Vec::new(), 0);
    for page in pages()? {
        let text = std::fs::read_to_string(&page)?;
        let lines: Vec<&str> = text.lines().collect();
        for block in blocks(&lines)? {
            for line in &lines[block.begin..block.end] {
                let command = match (block.language, line.strip_prefix("$ ")) {
                    ("sh", _) => line,
                    ("text", Some(command)) => command,
                    _ => continue,
                };
                for arguments in ours(command) {
                    tried += 1;
                    if let Err(problem) = shell.understands(&arguments) {
                        problems.push(format!("{}: {command}: {problem:#}", page.display()));
                    }
                }
            }
        }
    }
    ensure!(tried >= 15, "only {tried} commands were found");
    ensure!(problems.is_empty(), "{}", problems.join("\n\n"));
    Ok(())
}

#[test]
fn commands_are_found_in_lines_of_a_shell() {
    let found = |line: &str| ours(line);
    assert_eq!(
        found("whereis-port wait 5432 --timeout 1m && ./migrate"),
        [" wait 5432 --timeout 1m "]
    );
    assert_eq!(found("port=$(whereis-port free) && ./serve"), [" free"]);
    assert_eq!(found("sudo ~/.cargo/bin/whereis-port 22   # whose?"), [" 22   "]);
    assert_eq!(found("sudo whereis-port -e x | jq -r '.a | whereis-port'"), [" -e x "]);
    assert_eq!(found("whereis-port man | sudo tee /x >/dev/null"), [" man "]);
    assert_eq!(found("whereis-port '[::1]:80|a' > x"), [" '[::1]:80|a' "]);
    assert!(
        found("# whereis-port 22").is_empty() && found("cargo install whereis-port").is_empty()
    );
}

/// The README, and all pages of the book.
fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = vec![sources().join("README.md")];
    let mut directories = vec![sources().join("docs/src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).context("reading the book")? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn blocks<'a>(lines: &[&'a str]) -> Result<Vec<Block<'a>>> {
    let (mut blocks, mut recorded, mut at) = (Vec::new(), None, 0);
    while let Some(line) = lines.get(at) {
        let comment = line.strip_prefix("<!-- recorded: ").and_then(|s| s.strip_suffix(" -->"));
        if let Some(language) = line.strip_prefix("```") {
            let begin = at + 1;
            let length = lines[begin..].iter().position(|line| *line == "```");
            let end =
                begin + length.with_context(|| format!("line {begin}: a block has no end"))?;
            blocks.push(Block { language, recorded: recorded.take(), begin, end });
            at = end;
        } else if comment.is_some() {
            recorded = comment;
        } else if !line.is_empty() {
            recorded = None;
        }
        at += 1;
    }
    Ok(blocks)
}

fn push(text: &mut String, lines: &[&str]) {
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
}

/// The arguments of each call of the tool in a line of a shell.
fn ours(line: &str) -> Vec<String> {
    let (mut commands, mut command) = (Vec::new(), String::new());
    let (mut quote, mut redirected, mut before) = (None, false, ' ');
    for character in line.chars() {
        match (quote, character) {
            (None, '#') if before.is_whitespace() => break,
            (None, '|' | ';' | '&' | '(' | ')') => {
                commands.push(std::mem::take(&mut command));
                redirected = false;
                before = character;
                continue;
            }
            (None, '<' | '>') => redirected = true,
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
        if !redirected {
            command.push(character);
        }
        before = character;
    }
    commands.push(command);
    let arguments = |command: &String| {
        let command = command.trim_start();
        let command = command.strip_prefix("sudo ").unwrap_or(command);
        let command = command.strip_prefix("~/.cargo/bin/").unwrap_or(command);
        let arguments = command.strip_prefix("whereis-port")?;
        (arguments.is_empty() || arguments.starts_with(' ')).then(|| arguments.to_owned())
    };
    commands.iter().filter_map(arguments).collect()
}

/// A shell in the directory of the sources, in which `whereis-port` is the one that was built.
struct Shell {
    programs: tempfile::TempDir,
    binary: &'static Path,
}

impl Shell {
    fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let programs = tempfile::tempdir()?;
        for (name, script) in [
            (
                "whereis-port",
                "exec \"$EXAMPLE_BINARY\" ${EXAMPLE_NODE:+--replay \"$EXAMPLE_NODE\"} \"$@\"",
            ),
            ("sudo", "exec \"$@\""),
        ] {
            let file = programs.path().join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { programs, binary: lab::binary()? })
    }

    fn shell(&self, line: &str) -> Result<Command> {
        let mut paths = vec![self.programs.path().to_owned()];
        paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(sources()).stdin(Stdio::null());
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LC_ALL", "LC_CTYPE", "HOME"] {
            command.env_remove(name);
        }
        command.env("PATH", std::env::join_paths(paths)?).env("LANG", "C.UTF-8");
        command.env("EXAMPLE_BINARY", self.binary);
        Ok(command)
    }

    /// What an example prints, if it can be run here.
    fn run(&self, line: &str, recorded: Option<&str>) -> Result<Option<String>> {
        if line.contains("| jq ") && !lab::has("jq") {
            lab::skip(&format!("jq is not installed: {line}"));
            return Ok(None);
        }
        let mut command = self.shell(line)?;
        match recorded {
            Some(node) => {
                let file = format!("tests/data/{node}.json");
                ensure!(sources().join(&file).is_file(), "there is no {file}");
                command.env("EXAMPLE_NODE", file);
            }
            None if line.contains("--replay tests/data/") || line.contains(" --demo") => {}
            None if line.starts_with("whereis-port explain ") => {}
            None => bail!("it names no recorded node: it can't be run"),
        }
        let run = command.output()?;
        let stderr = String::from_utf8_lossy(&run.stderr);
        ensure!(stderr.is_empty(), "{stderr}");
        ensure!(!run.stdout.is_empty(), "it prints nothing: what does it show?");
        Ok(Some(String::from_utf8(run.stdout)?))
    }

    /// Whether the tool knows all options of a command. Nothing is done.
    fn understands(&self, arguments: &str) -> Test {
        let line = format!("set -- {arguments}; exec \"$EXAMPLE_BINARY\" \"$@\" --help");
        let run = self.shell(&line)?.output()?;
        ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        Ok(())
    }
}
