//! `papertrial data`: data sets.

use crate::FAMILIES;
use crate::cli::{Common, DataAction, DataArgs};
use crate::terminal::{self, print};
use papertrial_core::data::sets::{self, Place};
use papertrial_core::error::bytes;
use papertrial_core::options::OptionInfo;
use papertrial_core::{Error, Result};
use std::process::ExitCode;

pub fn run(args: &DataArgs, common: &Common) -> Result<ExitCode> {
    match &args.action {
        DataAction::List => list(common)?,
        DataAction::Get { name } => {
            let set = sets::find(name)?;
            let bar = terminal::byte_bar();
            let place = set.get(&|done, total| {
                bar.set_length(total);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            tell(common, name, &place?)?;
        }
        DataAction::Path { name } => {
            let set = sets::find(name)?;
            match set.place()? {
                Place::Local(path) | Place::Cached(path) if !common.json => {
                    print(&path.display().to_string());
                }
                place => tell(common, name, &place)?,
            }
        }
        DataAction::Verify { names } => {
            let chosen: Vec<_> = if names.is_empty() {
                let mut at_hand = Vec::new();
                for set in sets::all()? {
                    if set.place()? != Place::Absent {
                        at_hand.push(set);
                    }
                }
                at_hand
            } else {
                names.iter().map(|n| sets::find(n)).collect::<Result<_>>()?
            };
            for set in chosen {
                let place = set.verify()?;
                tell(common, &set.name, &place)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn words(place: &Place) -> (&'static str, Option<String>) {
    match place {
        Place::Embedded => ("part of the program", None),
        Place::Local(path) => ("local", Some(path.display().to_string())),
        Place::Cached(path) => ("cached", Some(path.display().to_string())),
        Place::Absent => ("absent", None),
    }
}

fn tell(common: &Common, name: &str, place: &Place) -> Result<()> {
    let (state, path) = words(place);
    if *place == Place::Absent {
        return Err(Error::BadInput(format!(
            "data set {name} is not at hand; 'papertrial data get {name}' brings it"
        )));
    }
    if common.json {
        return terminal::print_json(
            &serde_json::json!({"name": name, "place": state, "path": path}),
        );
    }
    let path = path.map(|p| format!(": {p}")).unwrap_or_default();
    print(&format!("{name}: {state}{path}"));
    Ok(())
}

fn list(common: &Common) -> Result<()> {
    if common.json {
        let mut rows = Vec::new();
        for set in sets::all()? {
            let (place, path) = words(&set.place()?);
            rows.push(serde_json::json!({
                "name": set.name, "about": set.about, "rows": set.rows, "columns": set.columns,
                "bytes": set.bytes, "sha256": set.sha256, "source": set.source, "licence": set.licence,
                "url": set.url, "roles": set.roles, "place": place, "path": path,
            }));
        }
        for simulation in FAMILIES.iter().flat_map(|f| f.simulations) {
            rows.push(serde_json::json!({
                "name": simulation.name, "about": simulation.about, "place": "simulated",
                "options": (simulation.options)(), "roles": (simulation.roles)(),
            }));
        }
        return terminal::print_json(&rows);
    }
    let mut table = terminal::table(&[
        "name",
        "what it is",
        "rows",
        "columns",
        "size",
        "licence",
        "SHA-256",
        "where",
    ]);
    for set in sets::all()? {
        table.add_row([
            set.name.clone(),
            set.about.clone(),
            set.rows.to_string(),
            set.columns.to_string(),
            bytes(set.bytes),
            set.licence.clone(),
            set.sha256.chars().take(12).collect(),
            words(&set.place()?).0.to_owned(),
        ]);
    }
    for simulation in FAMILIES.iter().flat_map(|f| f.simulations) {
        let options: Vec<String> = (simulation.options)().iter().map(shown).collect();
        table.add_row([
            simulation.name.to_owned(),
            format!("{} ({})", simulation.about, options.join(", ")),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            "simulated".into(),
        ]);
    }
    print(&table.to_string());
    Ok(())
}

fn shown(option: &OptionInfo) -> String {
    format!("{}={}", option.name, option.default)
}
