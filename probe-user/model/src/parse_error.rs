//! What is told of a text that can't be parsed: never the text itself.
//!
//! Errors of parsers quote values (`invalid type: string "…"`). A text that somebody
//! else chose may be, by a link, a file that only root may read.

/// What kind of error it is, and where.
pub fn told(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let what = match error.classify() {
        Category::Io => "can't be read to its end",
        Category::Syntax => "is no JSON",
        Category::Data => "is not in the form that is expected",
        Category::Eof => "ends too early",
    };
    match (error.line(), error.column()) {
        (0, _) => what.to_owned(),
        (line, column) => format!("{what} (line {line}, column {column})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_and_never_what() {
        #[derive(Debug, serde::Deserialize)]
        struct Small {
            #[expect(dead_code, reason = "only parsed")]
            id: u8,
        }
        let texts = [
            "\"hunter2\"",
            "{\"id\": \"hunter2\"}",
            "{\"hunter2\": 1}",
            "hunter2",
            "{\"id\": hunter2",
            "{\"id\": 1, \"id\": 2, \"hunter2\": 3}",
            "{\"id\": 2223}",
        ];
        for text in texts {
            let error = serde_json::from_str::<Small>(text).unwrap_err();
            let said = told(&error);
            assert!(!said.contains("hunter2") && !said.contains("2223"), "{said}");
            assert!(said.contains("line 1, column "), "{said}");
        }
        let error = serde_json::from_str::<Small>("{\n  \"id\": \"x\"").unwrap_err();
        assert_eq!(told(&error), "is not in the form that is expected (line 2, column 11)");
        let error = serde_json::from_str::<Small>("{").unwrap_err();
        assert_eq!(told(&error), "ends too early (line 1, column 1)");
    }
}
