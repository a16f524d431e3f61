//! Rows of text: chat messages, prompt and answer, or plain text, read from a table and written out for a model.
//!
//! A chat is written as the tuning script of the paper writes it: a line with the role's tag, then the content, then a
//! line break; an answer of the assistant is stripped and followed by the end of text. Plain text stands alone, without
//! a tag. A transcript (one line of a play per row of the table, a speaker's name ending in a colon before each speech)
//! becomes a table of speakers and speeches first.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Roles, Table};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Who speaks in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Sets the scene.
    System,
    /// Asks.
    User,
    /// Answers.
    Assistant,
    /// A program's output.
    Tool,
}

impl Speaker {
    /// Name, as it stands in the tag.
    pub fn name(self) -> &'static str {
        match self {
            Speaker::System => "system",
            Speaker::User => "user",
            Speaker::Assistant => "assistant",
            Speaker::Tool => "tool",
        }
    }

    /// The speaker called `name`; `human` and `gpt`, as some collections call them, are known too.
    fn of(name: &str) -> Option<Speaker> {
        Some(match name {
            "system" => Speaker::System,
            "user" | "human" => Speaker::User,
            "assistant" | "gpt" => Speaker::Assistant,
            "tool" => Speaker::Tool,
            _ => return None,
        })
    }
}

/// A message; without a speaker it is plain text.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub speaker: Option<Speaker>,
    /// What is said.
    pub content: String,
}

/// A row of the pool or of the queries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// Its messages, in order.
    pub messages: Vec<Message>,
}

/// Which part of a row is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// All messages.
    All,
    /// All but the assistant's.
    Prompt,
    /// The assistant's alone.
    Response,
    /// The first two messages.
    FirstTwo,
}

impl Row {
    /// A row of plain text.
    pub fn plain(text: &str) -> Row {
        Row {
            messages: vec![Message {
                speaker: None,
                content: text.to_owned(),
            }],
        }
    }

    /// A question and its answer.
    pub fn pair(prompt: &str, response: &str) -> Row {
        let message = |speaker, content: &str| Message {
            speaker: Some(speaker),
            content: content.to_owned(),
        };
        Row {
            messages: vec![
                message(Speaker::User, prompt),
                message(Speaker::Assistant, response),
            ],
        }
    }

    /// The messages of `part`. Plain text belongs to every part but the response.
    pub fn of(&self, part: Part) -> impl Iterator<Item = &Message> {
        let answer = |m: &Message| m.speaker == Some(Speaker::Assistant);
        self.messages
            .iter()
            .enumerate()
            .filter(move |(i, m)| match part {
                Part::All => true,
                Part::Prompt => !answer(m),
                Part::Response => answer(m),
                Part::FirstTwo => *i < 2,
            })
            .map(|(_, m)| m)
    }

    /// The words alone, one message a line: what is compared by words and looked for twice.
    pub fn words(&self, part: Part) -> String {
        let contents: Vec<&str> = self.of(part).map(|m| m.content.trim()).collect();
        contents.join("\n")
    }

    /// The text as a model with these tags reads it, `end` being its end of text.
    pub fn serialise(&self, part: Part, end: &str) -> String {
        let mut text = String::new();
        for message in self.of(part) {
            match message.speaker {
                None => text.push_str(&message.content),
                Some(speaker) => {
                    text.push_str(&format!("<|{}|>\n", speaker.name()));
                    if speaker == Speaker::Assistant {
                        text.push_str(message.content.trim());
                        text.push_str(end);
                    } else {
                        text.push_str(&message.content);
                    }
                    text.push('\n');
                }
            }
        }
        text
    }
}

/// Columns that hold the text, as the user names them.
#[derive(Debug, Clone, Default)]
pub struct Named<'a> {
    /// Lists of messages.
    pub messages: Option<&'a str>,
    /// Prompts.
    pub prompt: Option<&'a str>,
    /// Answers.
    pub response: Option<&'a str>,
}

/// Where the text of a table is.
#[derive(Debug, Clone, PartialEq)]
pub enum Layout {
    /// One column of lists of messages, or of such lists as JSON text.
    Messages(usize),
    /// Prompt, a further input that belongs to it, and answer.
    Pair(usize, Option<usize>, usize),
    /// One column of text.
    Text(usize),
}

/// Finds the text of `table`: named columns first, then the text role, then the usual names.
///
/// # Errors
/// A named column is missing, or nothing that could be text is found.
pub fn layout(table: &Table, roles: &Roles, named: &Named) -> Result<Layout> {
    let find = |name: &str| table.columns().iter().position(|c| *c == name);
    if let Some(column) = named.messages {
        return Ok(Layout::Messages(table.column_for("messages", column)?));
    }
    match (named.prompt, named.response) {
        (Some(prompt), Some(response)) => {
            return Ok(Layout::Pair(
                table.column_for("prompt", prompt)?,
                None,
                table.column_for("response", response)?,
            ));
        }
        (None, None) => {}
        _ => {
            return Err(Error::option(
                "prompt",
                "belongs together with response; name both columns",
            ));
        }
    }
    if let Some(column) = &roles.text {
        return Ok(Layout::Text(table.column_for("--text", column)?));
    }
    if let Some(messages) = find("messages").or(find("conversations")) {
        return Ok(Layout::Messages(messages));
    }
    for (prompt, response) in [
        ("prompt", "response"),
        ("prompt", "completion"),
        ("instruction", "output"),
        ("instruction", "response"),
    ] {
        if let (Some(prompt), Some(response)) = (find(prompt), find(response)) {
            return Ok(Layout::Pair(
                prompt,
                find("input").or(find("context")),
                response,
            ));
        }
    }
    find("text").map(Layout::Text).ok_or_else(|| {
        Error::option(
            "--text",
            format!(
                "{} has no column 'messages', 'prompt' and 'response', or 'text'; name the column with the text (its columns: {})",
                table.name(),
                table.columns().join(", ")
            ),
        )
    })
}

/// Reads all rows.
///
/// # Errors
/// A row is empty or malformed; the row is named, from 1.
pub fn read(table: &Table, layout: &Layout) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batch in table.batches()? {
        let first = rows.len();
        rows.extend(batch_rows(table, &batch?, layout, first)?);
    }
    Ok(rows)
}

/// The rows of one batch, whose first is row `first` of the table, from 0.
///
/// # Errors
/// As [`read`].
pub fn batch_rows(
    table: &Table,
    batch: &RecordBatch,
    layout: &Layout,
    first: usize,
) -> Result<Vec<Row>> {
    let wrong = |column: usize, problem: String| {
        Error::column(table.name(), batch.schema().field(column).name(), problem)
    };
    let column = |index: usize| -> Result<StringArray> {
        texts(batch.column(index))
            .ok_or_else(|| wrong(index, "holds no text; name a column of text".into()))
    };
    let cell = |texts: &StringArray, i: usize| -> String {
        if texts.is_null(i) {
            String::new()
        } else {
            texts.value(i).to_owned()
        }
    };
    let (place, rows) = match layout {
        Layout::Text(index) => {
            let texts = column(*index)?;
            let rows = (0..texts.len())
                .map(|i| Row::plain(&cell(&texts, i)))
                .collect();
            (*index, rows)
        }
        Layout::Pair(prompt, input, response) => {
            let (prompts, responses) = (column(*prompt)?, column(*response)?);
            let inputs = input.map(column).transpose()?;
            let rows = (0..prompts.len())
                .map(|i| {
                    let mut prompt = cell(&prompts, i);
                    if let Some(input) = inputs.as_ref().map(|t| cell(t, i))
                        && !input.trim().is_empty()
                    {
                        prompt.push('\n');
                        prompt.push_str(&input);
                    }
                    Row::pair(&prompt, &cell(&responses, i))
                })
                .collect();
            (*prompt, rows)
        }
        Layout::Messages(index) => {
            let rows = chats(batch.column(*index), first).map_err(|e| wrong(*index, e))?;
            (*index, rows)
        }
    };
    let empty = |row: &Row| row.messages.iter().all(|m| m.content.trim().is_empty());
    let rows: Vec<Row> = rows;
    match rows.iter().position(empty) {
        None => Ok(rows),
        Some(i) => Err(wrong(
            place,
            format!(
                "row {} has no text; take empty rows out of the file",
                first + i + 1
            ),
        )),
    }
}

/// A column as text, if it is text or can be shown as such.
pub fn texts(column: &ArrayRef) -> Option<StringArray> {
    match column.data_type() {
        DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) => None,
        _ => cast(column, &DataType::Utf8)
            .ok()
            .map(|text| text.as_string::<i32>().clone()),
    }
}

/// Lists of messages: nested columns, or JSON text.
fn chats(column: &ArrayRef, first: usize) -> std::result::Result<Vec<Row>, String> {
    let expected = "should hold lists of messages, each with role and content";
    let lists = match column.data_type() {
        DataType::List(_) => column.clone(),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let kind = DataType::List(Arc::new(Field::new_list_field(
                item.data_type().clone(),
                true,
            )));
            cast(column, &kind).map_err(|_| expected.to_owned())?
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = texts(column).ok_or(expected)?;
            return (0..texts.len())
                .map(|i| {
                    let text = if texts.is_null(i) { "" } else { texts.value(i) };
                    chat_of_json(text).map_err(|e| format!("row {}: {e}", first + i + 1))
                })
                .collect();
        }
        _ => return Err(expected.into()),
    };
    let lists = lists.as_list::<i32>();
    let Some(items) = lists.values().as_struct_opt() else {
        return Err(expected.into());
    };
    let field = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|n| items.column_by_name(n))
            .and_then(texts)
            .ok_or_else(|| format!("{expected}; there is no {}", names[0]))
    };
    let (speakers, contents) = (field(["role", "from"])?, field(["content", "value"])?);
    (0..lists.len())
        .map(|i| {
            if lists.is_null(i) {
                return Ok(Row::default());
            }
            let range = lists.value_offsets()[i] as usize..lists.value_offsets()[i + 1] as usize;
            let messages: std::result::Result<Vec<Message>, String> = range
                .map(|j| {
                    let name = if speakers.is_null(j) {
                        ""
                    } else {
                        speakers.value(j)
                    };
                    let content = if contents.is_null(j) {
                        ""
                    } else {
                        contents.value(j)
                    };
                    message(name, content).map_err(|e| format!("row {}: {e}", first + i + 1))
                })
                .collect();
            Ok(Row {
                messages: messages?,
            })
        })
        .collect()
}

fn chat_of_json(text: &str) -> std::result::Result<Row, String> {
    if text.trim().is_empty() {
        return Ok(Row::default());
    }
    let Ok(Value::Array(items)) = serde_json::from_str(text) else {
        return Err(
            "is not a JSON list of messages, such as [{\"role\": \"user\", \"content\": \"…\"}]"
                .into(),
        );
    };
    let messages: std::result::Result<Vec<Message>, String> = items
        .iter()
        .map(|item| {
            let text = |names: [&str; 2]| {
                names
                    .iter()
                    .find_map(|n| item.get(n))
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            message(text(["role", "from"]), text(["content", "value"]))
        })
        .collect();
    Ok(Row {
        messages: messages?,
    })
}

fn message(speaker: &str, content: &str) -> std::result::Result<Message, String> {
    let known = Speaker::of(speaker).ok_or_else(|| {
        format!("unknown role '{speaker}'; roles are system, user, assistant and tool")
    })?;
    Ok(Message {
        speaker: Some(known),
        content: content.to_owned(),
    })
}

/// Longest speaker's name, in words.
const NAME_WORDS: usize = 4;

/// Turns a table of lines into one of speeches, columns `speaker` and `text`.
///
/// A line of up to four words that all begin with a capital (but for "of" and "the") and that ends in a colon names
/// the next speaker. Empty lines are passed over.
///
/// # Errors
/// The table has more than one column and no text role, or no line names a speaker.
pub fn speeches(table: &Table, roles: &Roles) -> Result<Table> {
    let index = match &roles.text {
        Some(column) => table.column_for("--text", column)?,
        None if table.columns().len() == 1 => 0,
        None => {
            return Err(Error::option(
                "--text",
                format!("name the column of {} that holds the lines", table.name()),
            ));
        }
    };
    let mut speakers: Vec<String> = Vec::new();
    let mut said: Vec<String> = Vec::new();
    let mut name: Option<String> = None;
    for column in table.column(index)? {
        let lines = texts(&column)
            .ok_or_else(|| Error::column(table.name(), table.columns()[index], "holds no text"))?;
        for line in lines.iter().flatten().map(str::trim) {
            if line.is_empty() {
                continue;
            }
            if let Some(speaker) = speaker(line) {
                name = Some(speaker.to_owned());
                speakers.push(speaker.to_owned());
                said.push(String::new());
            } else if let (Some(_), Some(text)) = (&name, said.last_mut()) {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(line);
            }
        }
    }
    let (speakers, said): (Vec<String>, Vec<String>) = speakers
        .into_iter()
        .zip(said)
        .filter(|(_, text)| !text.is_empty())
        .unzip();
    if said.is_empty() {
        return Err(Error::option(
            "layout",
            format!(
                "{} has no line that names a speaker and ends in a colon, such as ROMEO:",
                table.name()
            ),
        ));
    }
    let columns: [(&str, ArrayRef); 2] = [
        ("speaker", Arc::new(StringArray::from(speakers))),
        ("text", Arc::new(StringArray::from(said))),
    ];
    let batch = RecordBatch::try_from_iter(columns)
        .map_err(|e| Error::Failed(format!("speeches do not make a table: {e}")))?;
    Ok(Table::memory(table.name(), vec![batch]))
}

fn speaker(line: &str) -> Option<&str> {
    let name = line.strip_suffix(':')?;
    let words: Vec<&str> = name.split_whitespace().collect();
    let fits =
        |w: &&str| w.chars().next().is_some_and(char::is_uppercase) || *w == "of" || *w == "the";
    ((1..=NAME_WORDS).contains(&words.len()) && words.iter().all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::ReadOptions;

    fn open(name: &str, content: &str) -> (tempfile::TempDir, Table) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let table = Table::open(&path, &ReadOptions::default()).unwrap();
        (folder, table)
    }

    fn rows(table: &Table) -> Result<Vec<Row>> {
        let layout = layout(table, &Roles::default(), &Named::default())?;
        read(table, &layout)
    }

    const CHATS: &str = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Hello. "}]}
{"messages": [{"role": "system", "content": "Be short"}, {"role": "user", "content": "Why?"}]}
"#;

    #[test]
    fn a_chat_is_written_with_tags_and_its_answer_stripped() {
        let (_folder, table) = open("pool.jsonl", CHATS);
        let rows = rows(&table).unwrap();
        assert_eq!(
            rows[0].serialise(Part::All, "</s>"),
            "<|user|>\nHi\n<|assistant|>\nHello.</s>\n"
        );
        assert_eq!(rows[0].serialise(Part::Prompt, "</s>"), "<|user|>\nHi\n");
        assert_eq!(
            rows[0].serialise(Part::Response, ""),
            "<|assistant|>\nHello.\n"
        );
        assert_eq!(rows[1].words(Part::All), "Be short\nWhy?");
        assert_eq!(
            Row::plain("as it is ").serialise(Part::All, "</s>"),
            "as it is "
        );
    }

    #[test]
    fn the_same_chats_come_from_json_text_and_parquet() {
        let (_folder, table) = open("pool.jsonl", CHATS);
        let want = rows(&table).unwrap();
        let quoted: String = CHATS
            .lines()
            .map(|l| {
                let list = serde_json::from_str::<Value>(l).unwrap()["messages"].to_string();
                format!("\"{}\"\n", list.replace('"', "\"\""))
            })
            .collect();
        let (_folder, csv) = open("pool.csv", &format!("messages\n{quoted}"));
        assert_eq!(rows(&csv).unwrap(), want);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.parquet");
        let mut out = papertrial_core::data::Output::table(&path).unwrap();
        let batches: Vec<RecordBatch> = table.batches().unwrap().map(Result::unwrap).collect();
        out.write(&batches).unwrap();
        out.finish().unwrap();
        let parquet = Table::open(&path, &ReadOptions::default()).unwrap();
        assert_eq!(rows(&parquet).unwrap(), want);
    }

    #[test]
    fn prompt_and_response_and_a_further_input() {
        let (_folder, table) = open(
            "pool.csv",
            "instruction,input,output\nAdd,1 and 2,3\nName a colour,,red\n",
        );
        let rows = rows(&table).unwrap();
        assert_eq!(rows[0], Row::pair("Add\n1 and 2", "3"));
        assert_eq!(rows[1], Row::pair("Name a colour", "red"));
        assert_eq!(rows[1].words(Part::FirstTwo), "Name a colour\nred");
    }

    #[test]
    fn empty_rows_and_unknown_roles_are_told_by_row() {
        let (_folder, table) = open("pool.csv", "text,n\nfirst,1\n  ,2\n");
        let text = rows(&table).unwrap_err().to_string();
        assert!(text.contains("row 2 has no text"), "{text}");
        let bad = CHATS.replace("system", "narrator");
        let (_folder, table) = open("pool.jsonl", &bad);
        let text = rows(&table).unwrap_err().to_string();
        assert!(
            text.contains("row 2: unknown role 'narrator'") && text.contains("assistant"),
            "{text}"
        );
        let (_folder, table) = open("pool.csv", "a,b\n1,2\n");
        let text = rows(&table).unwrap_err().to_string();
        assert!(
            text.contains("'messages'") && text.contains("a, b"),
            "{text}"
        );
        let half = Named {
            prompt: Some("a"),
            ..Named::default()
        };
        assert!(layout(&table, &Roles::default(), &half).is_err());
    }

    #[test]
    fn a_play_becomes_speeches() {
        let play = "First Citizen:\nHear me.\nProceed we may: yes\nKING RICHARD III:\nNo: never so,\nI say:\nDUKE OF YORK:\nHis\n";
        let lines: ArrayRef = Arc::new(StringArray::from_iter_values(play.lines()));
        let batch = RecordBatch::try_from_iter([("line", lines)]).unwrap();
        let table = speeches(&Table::memory("play", vec![batch]), &Roles::default()).unwrap();
        let batch = table.batches().unwrap().next().unwrap().unwrap();
        let cells = |i: usize| -> Vec<String> {
            texts(batch.column(i))
                .unwrap()
                .iter()
                .map(|t| t.unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            cells(0),
            ["First Citizen", "KING RICHARD III", "DUKE OF YORK"]
        );
        assert_eq!(
            cells(1),
            [
                "Hear me.\nProceed we may: yes",
                "No: never so,\nI say:",
                "His"
            ]
        );
        let none: ArrayRef = Arc::new(StringArray::from(vec!["no one speaks"]));
        let batch = RecordBatch::try_from_iter([("line", none)]).unwrap();
        assert!(speeches(&Table::memory("x", vec![batch]), &Roles::default()).is_err());
    }
}
