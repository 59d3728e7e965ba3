//! Commands that are typed after a colon.

use super::ports::{GroupBy, ON_SCREEN};
use super::{Effect, Question, State, View};
use crate::tui::filter::Filter;
use whereis_port_model::{Port, Proto};

/// The commands, as the message about an unknown one lists them.
const COMMANDS: &str =
    "port, netns, filter, sort, group, export, ports, path, events, sources, help, refresh, quit";

impl State {
    /// Does what was typed after a colon.
    pub(super) fn command(&mut self, text: &str) -> Vec<Effect> {
        let text = text.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match self.run(name, rest) {
            Ok(effects) => effects,
            Err(message) => {
                self.say(message);
                Vec::new()
            }
        }
    }

    fn run(&mut self, name: &str, rest: &str) -> Result<Vec<Effect>, String> {
        match name {
            "" => {}
            "q" | "quit" | "exit" => return Ok(vec![Effect::Quit]),
            "help" => self.open_help(),
            "ports" => self.show(View::Ports),
            "path" => self.show(View::Path),
            "events" => self.show(View::Events),
            "sources" | "doctor" => self.show(View::Sources),
            "refresh" => return Ok(vec![Effect::Refresh]),
            "port" => self.port(rest)?,
            "filter" => {
                self.show(View::Ports);
                self.filter(rest, true);
            }
            "netns" if rest.is_empty() => return Err("netns needs a name: :netns host".to_owned()),
            "netns" => {
                self.show(View::Ports);
                self.ports.filter = Filter::parse(&format!("netns:{rest}"));
                self.ports.order(self.clock);
            }
            "sort" => {
                let (name, order) = rest.split_once(':').unwrap_or((rest, ""));
                let column = ON_SCREEN.into_iter();
                let mut column = column.filter(|c| c.title().eq_ignore_ascii_case(name));
                let known = ON_SCREEN.map(|column| column.title().to_lowercase()).join(", ");
                self.ports.sort =
                    column.next().ok_or_else(|| format!("no column {name:?}: {known}"))?;
                self.ports.descending = order == "desc";
                self.ports.order(self.clock);
            }
            "group" => {
                let group = GroupBy::ALL.into_iter().find(|group| group.name() == rest);
                if group.is_none() && !matches!(rest, "" | "none") {
                    let known = GroupBy::ALL.map(GroupBy::name).join(", ");
                    return Err(format!("no group {rest:?}: {known}, none"));
                }
                self.ports.group = group;
                self.ports.order(self.clock);
            }
            "export" => {
                let (name, text) = self.exported();
                let name =
                    if rest.is_empty() { format!("whereis-port-{name}") } else { rest.into() };
                return Ok(vec![Effect::Export { name, text }]);
            }
            // A number alone is a port.
            number if number.starts_with(|c: char| c.is_ascii_digit()) => self.port(number)?,
            other => return Err(format!("no command {other:?}: {COMMANDS}")),
        }
        Ok(Vec::new())
    }

    fn port(&mut self, text: &str) -> Result<(), String> {
        let (port, proto) = text.split_once('/').unwrap_or((text, ""));
        let proto = match proto {
            "" => None,
            "tcp" => Some(Proto::Tcp),
            "udp" => Some(Proto::Udp),
            other => return Err(format!("{other:?} is neither tcp nor udp")),
        };
        let port = port.parse().ok().filter(|port| *port > 0).map(Port);
        let port = port.ok_or_else(|| format!("{text:?} is no port: :port 30518"))?;
        // Where it is not shown it may still be on its way, or known to a runtime only.
        if self.go_to(None, proto, port) {
            self.show(View::Ports);
        } else {
            self.free = Some(Question { port, proto, row: None });
            self.show(View::Path);
        }
        Ok(())
    }
}
