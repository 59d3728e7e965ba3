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
    match shell {
        clap_complete::Shell::Zsh => return knows_node_zsh(&script, &name),
        clap_complete::Shell::Fish => return knows_node_fish(&script, &command),
        clap_complete::Shell::Bash => {}
        _ => return script,
    }
    // clap_complete 4.6 names the state of a command with a hyphen in its name in
    // two ways, `whereis__port` where it is set and `whereis__subcmd__port` where
    // it is asked for, so that nothing is completed behind a subcommand. With a
    // version that agrees with itself there is nothing to replace.
    let (set, asked) = (name.replace('-', "__"), name.replace('-', "__subcmd__"));
    knows_node_bash(&script.replace(&asked, &set), &set)
}

/// Has bash ask the program, too. What it gives replaces what comes from the options alone, or is
/// added to it.
fn knows_node_bash(script: &str, function: &str) -> String {
    let own =
        script.replace(&format!("complete -F _{function} "), "complete -F _whereis_port_node ");
    format!(
        r#"{own}
_whereis_port_node() {{
    _{function} "$@"
    local line="${{COMP_LINE:0:COMP_POINT}}" word answer kind
    local -a words names
    read -ra words <<< "$line"
    case "$line" in *[[:space:]]) words+=("") ;; esac
    answer=$(command "${{words[0]}}" __complete "${{words[@]:1}}" 2>/dev/null) || return 0
    kind="${{answer%%$'
'*}}"
    [ -n "$kind" ] || return 0
    # What stands before the last : or = is a word of its own to bash.
    word="${{words[${{#words[@]}}-1]}}"
    word="${{word%"${{word##*[:=]}}"}}"
    while IFS=$'	' read -r name _; do
        [ -n "$name" ] && names+=("${{name#"$word"}}")
    done <<< "${{answer#"$kind"}}"
    if [ "$kind" = "=" ]; then COMPREPLY=(); fi
    COMPREPLY+=("${{names[@]}}")
    if [ "${{#COMPREPLY[@]}}" = 1 ]; then
        case "${{COMPREPLY[0]}}" in *:) compopt -o nospace 2>/dev/null ;; esac
    fi
    return 0
}}
"#
    )
}

/// The same for zsh.
fn knows_node_zsh(script: &str, name: &str) -> String {
    let function = format!("_{name}() {{");
    let own = script.replacen(&format!("\n{function}"), &format!("\n_{name}_static() {{"), 1);
    let ask = format!(
        r#"
_{name}() {{
    local -a answer names shown
    local line kind
    answer=("${{(@f)$(command $words[1] __complete "${{(@)words[2,CURRENT]}}" 2>/dev/null)}}")
    kind=$answer[1]
    shift answer
    for line in $answer; do
        names+=("${{line%%$'	'*}}")
        shown+=("${{line/$'	'/  }}")
    done
    (( $#names )) && compadd -l -d shown -a names
    [[ $kind == '=' ]] || _{name}_static "$@"
}}
"#
    );
    // Before the lines at the end, which call it.
    match own.rfind("\nif [ ") {
        Some(at) => format!("{}{ask}{}", &own[..at], &own[at..]),
        None => own + &ask,
    }
}

/// The same for fish.
fn knows_node_fish(script: &str, command: &Command) -> String {
    let name = command.get_name();
    let mut text = format!(
        r#"{script}
function __whereis_port_node
    set -l words (commandline -opc) (commandline -ct)
    command $words[1] __complete $words[2..-1] 2>/dev/null | tail -n +2
end
complete -c {name} -a '(__whereis_port_node)'
"#
    );
    for option in KNOWN_BY_NODE {
        let mut all = std::iter::once(command).chain(command.get_subcommands());
        let known = all.find_map(|one| one.get_opts().find(|arg| arg.get_long() == Some(option)));
        let short = known.and_then(clap::Arg::get_short);
        let short = short.map_or_else(String::new, |short| format!("-s {short} "));
        text.push_str(&format!(
            "complete -c {name} {short}-l {option} -x -a '(__whereis_port_node)'\n"
        ));
    }
    text
}

/// The options whose values a node knows.
const KNOWN_BY_NODE: [&str; 9] =
    ["pod", "container", "netns", "context", "pid", "from", "columns", "sort", "where"];

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
