//! `papertrial data`: data sets and models.

use crate::FAMILIES;
use crate::cli::{Common, DataAction, DataArgs};
use crate::terminal::{self, print};
use papertrial_core::data::models::{self, Model};
use papertrial_core::data::sets::{self, DataSet, Place};
use papertrial_core::error::bytes;
use papertrial_core::options::OptionInfo;
use papertrial_core::{Error, Result};
use std::process::ExitCode;

/// What a name stands for.
enum Known {
    Set(&'static DataSet),
    Model(&'static Model),
}

impl Known {
    fn find(name: &str) -> Result<Known> {
        match models::all()?.iter().find(|m| m.name == name) {
            Some(model) => Ok(Known::Model(model)),
            None => sets::find(name).map(Known::Set),
        }
    }

    fn name(&self) -> &str {
        match self {
            Known::Set(set) => &set.name,
            Known::Model(model) => &model.name,
        }
    }

    fn place(&self) -> Result<Place> {
        match self {
            Known::Set(set) => set.place(),
            Known::Model(model) => model.place(),
        }
    }

    fn verify(&self) -> Result<Place> {
        match self {
            Known::Set(set) => set.verify(),
            Known::Model(model) => model.verify(),
        }
    }

    fn get(&self, progress: &dyn Fn(u64, u64)) -> Result<Place> {
        match self {
            Known::Set(set) => set.get(progress),
            Known::Model(model) => model.get(progress),
        }
    }
}

pub fn run(args: &DataArgs, common: &Common) -> Result<ExitCode> {
    match &args.action {
        DataAction::List => list(common)?,
        DataAction::Get { name } => {
            let known = Known::find(name)?;
            let bar = terminal::byte_bar();
            let place = known.get(&|done, total| {
                bar.set_length(total);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            tell(common, name, &place?)?;
        }
        DataAction::Path { name } => match Known::find(name)?.place()? {
            Place::Local(path) | Place::Cached(path) if !common.json => {
                print(&path.display().to_string());
            }
            place => tell(common, name, &place)?,
        },
        DataAction::Verify { names } => {
            let chosen: Vec<Known> = if names.is_empty() {
                let sets = sets::all()?.iter().map(Known::Set);
                let mut at_hand = Vec::new();
                for known in sets.chain(models::all()?.iter().map(Known::Model)) {
                    if known.place()? != Place::Absent {
                        at_hand.push(known);
                    }
                }
                at_hand
            } else {
                names
                    .iter()
                    .map(|n| Known::find(n))
                    .collect::<Result<_>>()?
            };
            for known in chosen {
                tell(common, known.name(), &known.verify()?)?;
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
            "{name} is not at hand; 'papertrial data get {name}' brings it"
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
        for model in models::all()? {
            let (place, path) = words(&model.place()?);
            rows.push(serde_json::json!({
                "name": model.name, "about": model.about, "sha256": model.sha256, "source": model.source,
                "licence": model.licence, "url": model.url, "place": place, "path": path,
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
    for model in models::all()? {
        table.add_row([
            model.name.clone(),
            model.about.clone(),
            String::new(),
            String::new(),
            bytes(model.archive.bytes),
            model.licence.clone(),
            model.sha256.chars().take(12).collect(),
            words(&model.place()?).0.to_owned(),
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
