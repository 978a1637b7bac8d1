//! `poolhouse check`: says every problem of a configuration without running it.

use std::{
    fmt::{self, Display},
    io::{self, Write, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::EXIT_USAGE;
use crate::config::{self, Loaded, Mistakes, Overrides, Settings};

/// Read a configuration and say every problem with file, line, key and the mend.
///
/// Exits with 0 when it is fine (warnings allowed) and with 2 when it is not.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file (TOML).
    #[arg(required_unless_present_any = ["reference", "schema"])]
    config: Option<PathBuf>,
    /// Write a configuration file with every key, its default and what it does, instead of reading one.
    #[arg(long, conflicts_with = "config")]
    reference: bool,
    /// Write a JSON schema of configuration files, as editors use it, instead of reading one.
    #[arg(long, conflicts_with_all = ["config", "reference"])]
    schema: bool,
}

/// Reads the file and reports to standard output.
pub fn run(arguments: &Arguments) -> ExitCode {
    let Some(config) = &arguments.config else {
        let text = if arguments.schema { config::schema() } else { config::reference() };
        let written = stdout().lock().write_all(text.as_bytes());
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    let loaded = config::load(config, &Overrides::default());
    // Standard output may be closed (`| head`); the exit code says the same.
    let _ = report(config, &loaded, &mut stdout().lock());
    if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) }
}

fn report(path: &Path, loaded: &Result<Loaded, Mistakes>, out: &mut impl Write) -> io::Result<()> {
    let warnings = match loaded {
        Ok(loaded) => &loaded.warnings,
        Err(mistakes) => {
            writeln!(out, "{mistakes}")?;
            &mistakes.warnings
        }
    };
    for warning in warnings {
        writeln!(out, "{warning} (warning)")?;
    }
    match loaded {
        Ok(loaded) => writeln!(out, "{}: fine: {}", path.display(), Summary(&loaded.settings)),
        Err(mistakes) => writeln!(out, "{}: {}", path.display(), Count(mistakes.mistakes.len(), "problem")),
    }
}

struct Summary<'a>(&'a Settings);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary(settings) = self;
        let nodes = settings.clusters.iter().map(|cluster| cluster.addresses.len()).sum();
        let listen: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        let databases = Count(settings.databases.len(), "database");
        let clusters = Count(settings.clusters.len(), "cluster");
        write!(f, "{databases} in {clusters} of {}, listening at {}", Count(nodes, "node"), listen.join(", "))
    }
}

/// A number and its noun.
struct Count(usize, &'static str);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, noun) = self;
        let plural = if *number == 1 { "" } else { "s" };
        write!(f, "{number} {noun}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mistake;

    fn said(loaded: &Result<Loaded, Mistakes>) -> String {
        let mut out = Vec::new();
        report(Path::new("p.toml"), loaded, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_fine_configuration_is_summed_up() {
        let upstream = "postgres://app@10.0.0.1,10.0.0.2/app";
        let said = said(&config::from_upstream(upstream, "--upstream", &Overrides::default()));
        assert!(said.contains("(warning)\n"), "{said}");
        assert!(
            said.ends_with("p.toml: fine: 1 database in 1 cluster of 2 nodes, listening at 127.0.0.1:6432\n"),
            "{said}"
        );
    }

    #[test]
    fn every_problem_has_a_line() {
        let mistake = |line, key: &str, what: &str, mend: &str| Mistake {
            source: "p.toml".into(),
            line,
            key: key.into(),
            what: what.into(),
            mend: mend.into(),
        };
        let mistakes = vec![mistake(Some(3), "pool.size", "is wrong", "mend it"), mistake(None, "", "is bad", "")];
        let said = said(&Err(Mistakes { mistakes, warnings: vec![mistake(Some(1), "log", "is odd", "")] }));
        let expected = "p.toml:3: pool.size: is wrong; mend it\np.toml: is bad\np.toml:1: log: is odd (warning)\n\
                        p.toml: 2 problems\n";
        assert_eq!(said, expected);
    }
}
