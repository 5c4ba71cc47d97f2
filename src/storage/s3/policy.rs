//! The bucket policy that lets anyone read `public/`, and nothing else.

use serde_json::{Map, Value, json};

/// The name of this program's statement. It replaces a statement of this name, and keeps all others.
const STATEMENT: &str = "CameoPublicRead";

/// What is left of a policy without this program's statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// The policy has no such statement.
    Nothing,
    /// No statement is left.
    Everything,
    /// A policy with the statements of others.
    Rest(String),
}

/// The policy `existing` without this program's statement.
pub(super) fn without_public_read(existing: &str) -> Withdrawn {
    let Ok(mut policy) = serde_json::from_str::<Map<String, Value>>(existing) else {
        return Withdrawn::Nothing;
    };
    let mut statements = match policy.remove("Statement") {
        None => return Withdrawn::Nothing,
        Some(Value::Array(statements)) => statements,
        Some(statement) => vec![statement],
    };
    let before = statements.len();
    statements.retain(|statement| statement["Sid"] != STATEMENT);
    if statements.len() == before {
        return Withdrawn::Nothing;
    }
    if statements.is_empty() {
        return Withdrawn::Everything;
    }
    policy.insert("Statement".into(), statements.into());
    Withdrawn::Rest(Value::Object(policy).to_string())
}

/// The policy `existing` with this program's statement added.
pub(super) fn with_public_read(existing: Option<&str>, bucket: &str, region: &str) -> String {
    let partition = match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    let ours = json!({
        "Sid": STATEMENT,
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject"],
        "Resource": [format!("arn:{partition}:s3:::{bucket}/public/*")],
    });
    let mut policy: Map<String, Value> = existing
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let mut statements = match policy.remove("Statement") {
        Some(Value::Array(statements)) => statements,
        // A single statement may be written without an array.
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => Vec::new(),
    };
    statements.retain(|statement| statement["Sid"] != STATEMENT);
    statements.push(ours);
    policy.insert("Version".into(), "2012-10-17".into());
    policy.insert("Statement".into(), statements.into());
    Value::Object(policy).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_is_granted_and_only_under_public() {
        let policy: Value =
            serde_json::from_str(&with_public_read(None, "avatars", "eu-central-1")).unwrap();
        assert_eq!(policy["Statement"][0]["Action"], json!(["s3:GetObject"]));
        assert_eq!(
            policy["Statement"][0]["Resource"],
            json!(["arn:aws:s3:::avatars/public/*"])
        );
    }

    #[test]
    fn only_the_own_statement_is_withdrawn() {
        let theirs = r#"{"Version":"2012-10-17","Statement":{"Sid":"Theirs","Effect":"Deny"}}"#;
        assert_eq!(without_public_read(theirs), Withdrawn::Nothing);
        assert_eq!(without_public_read("no policy"), Withdrawn::Nothing);
        let ours = with_public_read(None, "avatars", "eu-central-1");
        assert_eq!(without_public_read(&ours), Withdrawn::Everything);
        let both = with_public_read(Some(theirs), "avatars", "eu-central-1");
        let Withdrawn::Rest(left) = without_public_read(&both) else {
            panic!("nothing is left")
        };
        let left: Value = serde_json::from_str(&left).unwrap();
        assert_eq!(left["Version"], "2012-10-17");
        assert_eq!(
            left["Statement"],
            json!([{"Sid": "Theirs", "Effect": "Deny"}])
        );
    }

    #[test]
    fn the_statements_of_others_stay() {
        let theirs = r#"{"Version":"2012-10-17","Statement":{"Sid":"Theirs","Effect":"Deny"}}"#;
        let once = with_public_read(Some(theirs), "avatars", "cn-north-1");
        let twice = with_public_read(Some(&once), "avatars", "cn-north-1");
        assert_eq!(once, twice);
        let policy: Value = serde_json::from_str(&twice).unwrap();
        assert_eq!(policy["Statement"][0]["Sid"], "Theirs");
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 2);
    }
}
