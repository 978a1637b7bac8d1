//! A JSON schema of the configuration, from the declarations, for editors (draft 7, which the editors of TOML know).

use serde_json::{Map, Value, json};

use super::{
    declare::{Key, Section, Usual},
    keys::{File, SECTIONS},
    kind::Shape,
    reference::{defaults, sentence, told},
};

const DURATION: &str = "^[0-9_]*[0-9][0-9_]*\\s*(ms|s|m|h|d)$";
const SIZE: &str = "^[0-9_]*[0-9][0-9_]*\\s*(B|kB|MB|GB|TB)$";

/// The text of the schema.
pub fn schema() -> String {
    let definitions = SECTIONS.iter().filter(|section| !section.at.is_empty());
    let definitions: Map<_, _> = definitions.map(|section| (name(section), object(section))).collect();
    let mut schema = object(&File::SECTION);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "The configuration of Poolhouse".into();
    schema["definitions"] = definitions.into();
    format!("{schema:#}\n")
}

fn name(section: &Section) -> String {
    section.at.replace('*', "X")
}

fn object(section: &Section) -> Value {
    let defaults = defaults(section);
    let default = |key: &Key| defaults.iter().find(|(name, _)| *name == key.name).map(|(_, value)| value.as_str());
    let properties: Map<_, _> =
        section.keys.iter().map(|key| (key.name.to_owned(), property(key, default(key)))).collect();
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !section.about.is_empty() {
        object["description"] = sentence(section.about).into();
    }
    object
}

fn property(key: &Key, default: Option<&str>) -> Value {
    let kind = (key.shape)();
    let mut property = shape(&kind);
    if !key.about.is_empty() {
        property["description"] = told(key).into();
    }
    let of_its_keys = match kind {
        Shape::Section(_) => true,
        Shape::Named(items) | Shape::List(items) => matches!(items, Shape::Section(_)),
        _ => false,
    };
    if !of_its_keys {
        property["x-takes-effect"] = key.effect.words().into();
    }
    let json = |text: &str| match kind {
        Shape::Whole(..) => serde_json::from_str(&text.replace('_', "")).ok(),
        // What stands for a secret is none.
        Shape::Secret | Shape::Section(_) | Shape::AsOne(_) => None,
        _ => serde_json::from_str::<Value>(text).ok(),
    };
    match key.usual {
        Usual::Default => {
            if let Some(default) = default.and_then(json) {
                property["default"] = default;
            }
        }
        Usual::Nothing(text) | Usual::Depends(text) | Usual::Asked(text) => {
            if let Some(example) = json(text) {
                property["examples"] = json!([example]);
            }
        }
    }
    property
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Number { or_zero: true, most } => json!({ "type": "number", "minimum": 0, "maximum": most }),
        Shape::Number { or_zero: false, most } => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": most }),
        Shape::Duration(..) | Shape::Limit => json!({ "type": "string", "pattern": DURATION }),
        Shape::Lag => {
            let one = json!({ "type": "string", "pattern": format!("{DURATION}|{SIZE}") });
            json!({ "anyOf": [one, { "type": "array", "items": one, "maxItems": 2 }] })
        }
        Shape::OneOf(choices) => json!({ "type": "string", "enum": choices }),
        Shape::Text | Shape::Secret => json!({ "type": "string" }),
        Shape::List(items) => json!({ "type": "array", "items": self::shape(items) }),
        Shape::AnyOf(kinds) => json!({ "anyOf": kinds.iter().map(self::shape).collect::<Vec<_>>() }),
        // Beside `$ref` nothing else counts in this draft.
        Shape::Section(section) | Shape::AsOne(section) => {
            json!({ "allOf": [{ "$ref": format!("#/definitions/{}", name(&section())) }] })
        }
        Shape::Named(items) => json!({ "type": "object", "additionalProperties": self::shape(items) }),
        Shape::NotYet => json!({ "not": {} }),
    }
}

#[cfg(test)]
mod tests {
    use toml::de::{DeTable, DeValue};

    use super::*;

    /// When it is not, `make reference` renews it.
    #[test]
    fn the_file_is_current() {
        assert_eq!(include_str!("../../config/schema.json"), schema(), "renew it with `make reference`");
    }

    fn json_of(value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => json!(text.as_ref()),
            DeValue::Integer(number) => json!(i64::from_str_radix(number.as_str(), number.radix()).unwrap()),
            DeValue::Float(number) => json!(number.as_str().parse::<f64>().unwrap()),
            DeValue::Boolean(flag) => json!(flag),
            DeValue::Datetime(time) => json!(time.to_string()),
            DeValue::Array(items) => items.iter().map(|item| json_of(item.get_ref())).collect(),
            DeValue::Table(table) => of_table(table),
        }
    }

    fn of_table(table: &DeTable<'_>) -> Value {
        let pair = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
            (key.get_ref().to_string(), json_of(value.get_ref()))
        };
        Value::Object(table.iter().map(pair).collect())
    }

    /// Whether the rules that the schema has hold for a value. A rule that is not known here fails.
    fn fits(value: &Value, rules: &Value, root: &Value) -> bool {
        let rules = rules.as_object().expect("rules are an object");
        rules.iter().all(|(rule, wanted)| match rule.as_str() {
            "$schema" | "title" | "description" | "default" | "examples" | "definitions" | "x-takes-effect" => true,
            "$ref" => fits(value, root.pointer(&wanted.as_str().unwrap()[1..]).expect("it is defined"), root),
            "type" => match wanted.as_str().unwrap() {
                "integer" => value.is_i64(),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("unknown type {other}"),
            },
            "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > wanted.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= wanted.as_f64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= wanted.as_u64().unwrap()),
            "pattern" => {
                let pattern = regex::Regex::new(wanted.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "enum" => wanted.as_array().unwrap().contains(value),
            "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(item, wanted, root))),
            "anyOf" => wanted.as_array().unwrap().iter().any(|rules| fits(value, rules, root)),
            "allOf" => wanted.as_array().unwrap().iter().all(|rules| fits(value, rules, root)),
            "not" => !fits(value, wanted, root),
            "properties" => value.as_object().is_none_or(|pairs| {
                pairs.iter().all(|(key, value)| wanted.get(key).is_none_or(|rules| fits(value, rules, root)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|pairs| {
                let known = |key: &String| rules.get("properties").is_some_and(|known| known.get(key).is_some());
                pairs
                    .iter()
                    .filter(|(key, _)| !known(key))
                    .all(|(_, value)| wanted.is_object() && fits(value, wanted, root))
            }),
            other => panic!("unknown rule {other}"),
        })
    }

    #[test]
    fn what_is_right_fits_and_what_is_wrong_does_not() {
        let root: Value = serde_json::from_str(&schema()).unwrap();
        let check = |text: &str, expected: bool| {
            let table = DeTable::parse(text).unwrap();
            assert_eq!(fits(&of_table(table.get_ref()), &root, &root), expected, "{text}");
        };
        for text in [
            include_str!("../../config/reference.toml"),
            include_str!("../../config/cluster.toml"),
            include_str!("../../config/many-databases.toml"),
            include_str!("../../config/sidecar.toml"),
            "users.a.pool.mode = \"session\"\n[databases.\"*\".routing]\nmax_lag = [\"1_000 s\", \"64MB\"]",
            "[[clusters.main.routing.rules]]\nuser = \"u\"\nweights = { a = 0 }",
        ] {
            check(text, true);
        }
        for text in [
            "pol.size = 1",
            "[pool]\nsise = 1",
            "[pool]\nsize = 0",
            "[pool]\nsize = 100_001",
            "[pool]\nsize = \"1\"",
            "[pool]\nmode = \"fast\"",
            "[pool]\nidle_timeout = 30",
            "[pool]\nidle_timeout = \"30\"",
            "[log]\nslow_values = \"yes\"",
            "[auth]\nhba_file = \"x\"",
            "[tls]\nmode = \"verify-full\"",
            "[coordination]\nnode = \"x\"",
            "[clusters.main]\nnodes = [{ adress = \"a\" }]",
            "[clusters.main]\nnodes = [{ address = \"a\", weight = 0 }]",
            "[databases.app.routing]\nmax_lag = \"1mb\"",
            "[users.a.pool]\nsize = -1",
        ] {
            check(text, false);
        }
    }
}
