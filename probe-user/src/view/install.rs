//! What is installed beside the program: completion scripts and the manual
//! page, made from the same definitions as `--help`.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

/// The completion script of `command` for `shell`.
pub fn completions(shell: clap_complete::Shell, mut command: Command) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, &name, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    if shell != clap_complete::Shell::Bash {
        return script;
    }
    // clap_complete 4.6 names the state of a command with a hyphen in its name in
    // two ways, `whereis__port` where it is set and `whereis__subcmd__port` where
    // it is asked for, so that nothing is completed behind a subcommand. With a
    // version that agrees with itself there is nothing to replace.
    let (set, asked) = (name.replace('-', "__"), name.replace('-', "__subcmd__"));
    script.replace(&asked, &set)
}

/// The manual page of `command`: one page that has its subcommands too. Of the
/// text after the help, a paragraph that begins with a line ending in a colon
/// becomes a section of that name, kept line by line.
///
/// # Errors
/// Those of writing to memory: none.
pub fn manual(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(command).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    commands(command).to_writer(&mut page)?;
    for sub in shown(command).filter(|sub| has_options(sub)) {
        let mut roff = Roff::default();
        let title = format!("{} {}", command.get_name(), sub.get_name()).to_uppercase();
        roff.control("SH", [title.as_str()]);
        roff.to_writer(&mut page)?;
        // Its own sections are parts of this one.
        let mut options = Vec::new();
        Man::new(sub.clone().disable_help_flag(true)).render_options_section(&mut options)?;
        page.extend(String::from_utf8_lossy(&options).replace(".SH ", ".SS ").into_bytes());
        after_help(sub, "SS").to_writer(&mut page)?;
    }
    after_help(command, "SH").to_writer(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// The subcommands that are documented.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

/// Whether there are options that are not those of every command.
fn has_options(command: &Command) -> bool {
    command.get_opts().next().is_some()
}

fn synopsis(command: &Command) -> Roff {
    let name = command.get_name();
    let mut roff = Roff::default();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(name), roman(" [OPTIONS] TARGET...")]);
    for sub in shown(command) {
        roff.control("br", []);
        roff.text([bold(format!("{name} {}", sub.get_name())), roman(usage(sub))]);
    }
    roff
}

/// What may follow the name of a subcommand.
fn usage(sub: &Command) -> String {
    let mut text = if has_options(sub) { " [OPTIONS]" } else { "" }.to_owned();
    for argument in sub.get_positionals() {
        let names = argument.get_value_names().unwrap_or_default();
        let name = names.first().map_or(argument.get_id().as_str(), |name| name.as_str());
        let name = name.to_uppercase();
        text.push_str(&if argument.is_required_set() {
            format!(" {name}")
        } else {
            format!(" [{name}...]")
        });
    }
    text
}

fn commands(command: &Command) -> Roff {
    let mut roff = Roff::default();
    roff.control("SH", ["COMMANDS"]);
    for sub in shown(command) {
        roff.control("TP", []);
        roff.text([bold(format!("{} {}", command.get_name(), sub.get_name())), roman(usage(sub))]);
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let mut text = vec![roman(about)];
        for argument in sub.get_positionals() {
            let values: Vec<String> = argument
                .get_possible_values()
                .iter()
                .map(|value| value.get_name().to_owned())
                .collect();
            if !values.is_empty() {
                text.push(roman(format!(": {}", values.join(", "))));
            }
        }
        roff.text(text);
    }
    roff
}

/// The text after the help, in sections of the kind `heading`.
fn after_help(command: &Command, heading: &str) -> Roff {
    let mut roff = Roff::default();
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        match first.strip_suffix(':') {
            Some(title) => {
                roff.control(heading, [title.to_uppercase().as_str()]);
                roff.control("nf", []);
                for line in rest.lines() {
                    roff.text([roman(line)]);
                }
                roff.control("fi", []);
            }
            None => {
                roff.control(heading, ["NOTES"]);
                roff.text(
                    paragraph
                        .lines()
                        .map(|line| roman(format!("{line} ")))
                        .collect::<Vec<Inline>>(),
                );
            }
        }
    }
    roff
}
