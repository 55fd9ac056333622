//! A run as a picture: what [`collect`] saw goes as JSON into one HTML page, whose script draws it. The page needs
//! nothing but itself.

mod collect;

pub use collect::Timeline;

use super::outcome::Outcome;
use serde::Serialize;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPTS: [&str; 3] = [include_str!("view.js"), include_str!("lanes.js"), include_str!("hover.js")];

#[derive(Serialize)]
struct Data<'a> {
    outcome: &'a Outcome,
    replay: String,
    #[serde(flatten)]
    lanes: collect::Lanes,
}

impl Timeline {
    /// The whole file.
    pub fn page(self, outcome: &Outcome) -> String {
        let data = Data { outcome, replay: outcome.command(), lanes: self.lanes() };
        let json = serde_json::to_string(&data).expect("names and numbers are JSON");
        page(&outcome.spec.seed.to_string(), &json)
    }
}

fn page(title: &str, json: &str) -> String {
    // The one thing that could end the script element from inside of it. In JSON `<` stands in strings only.
    let json = json.replace('<', "\\u003c");
    let mut page = String::new();
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = after.split_once("}}").expect("the page's own placeholders are closed");
        match name {
            "title" => page.push_str(title),
            "style" => page.push_str(STYLE),
            "data" => page.push_str(&json),
            "scripts" => SCRIPTS.iter().for_each(|script| page.push_str(script)),
            other => unreachable!("the page has no placeholder {other}"),
        }
        rest = after;
    }
    page + rest
}

#[cfg(test)]
mod tests {
    use super::super::outcome::samples;
    use super::*;
    use strandline_sim::watch::Watcher;

    #[test]
    fn a_page_is_one_file_that_fetches_nothing() {
        let page = Timeline::default().page(&samples::outcome(7, samples::safety()));
        for fetching in ["src=", "href=", "@import", "fetch(", "import(", "XMLHttpRequest"] {
            assert!(!page.contains(fetching), "{fetching}");
        }
        assert!(!page.replace("url(#hatch)", "").contains("url("));
        assert!(!page.contains("{{"));
        assert!(page.contains("I1-durability") && page.contains("--seed 7"));
    }

    #[test]
    fn what_clients_say_does_not_end_the_script() {
        let mut timeline = Timeline::default();
        timeline.fault(5, "crash", "</script><b>node-1", None);
        let page = timeline.page(&samples::outcome(7, None));
        assert!(!page.contains("</script><b>"));
        assert!(page.contains("\\u003c/script>\\u003cb>node-1"));
    }
}
