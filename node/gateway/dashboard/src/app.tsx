// The frame: where one can go, whether the page is live, and the page itself.

import { ClusterPage } from "./pages/cluster";
import { GroupsPage } from "./pages/groups";
import { IngestPage } from "./pages/ingest";
import { Overview } from "./pages/overview";
import { TopicsPage } from "./pages/topics";
import { useLive, type Live } from "./live";
import { link, useRoute } from "./route";
import { useTheme, type Choice } from "./theme";

const PAGES: [string, string][] = [
  ["", "Overview"],
  ["cluster", "Cluster"],
  ["topics", "Topics"],
  ["groups", "Groups"],
  ["ingest", "Ingest"],
];

const THEMES: Record<Choice, [Choice, string]> = {
  system: ["light", "◐ System"],
  light: ["dark", "○ Light"],
  dark: ["system", "● Dark"],
};

function Banner({ live }: { live: Live }) {
  if (live.status === "lost") {
    return (
      <div className="banner bad" role="alert">
        This gateway does not answer; trying again. What is shown is from before.
      </div>
    );
  }
  if (live.cluster !== null && !live.cluster.reachable) {
    return (
      <div className="banner bad" role="alert">
        No node answers this gateway; trying again. What is shown of the cluster is from before.
      </div>
    );
  }
  return null;
}

export function App() {
  const live = useLive();
  const route = useRoute();
  const [choice, choose, theme] = useTheme();
  const page = route.parts[0] ?? "";
  const [next, themeName] = THEMES[choice];
  const status = { connecting: "Connecting", live: "Live", lost: "Not connected" }[live.status];
  return (
    <>
      <a className="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        Skip to the content
      </a>
      <header className="top">
        <a className="brand" href={link()}>
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M3 10c4.3-4.5 8.7 4.500 13 0s8.700 4.500 13 0M3 17c4.300-4.500 8.700 4.500 13 0s8.700 4.500 13 0M3 24c4.300-4.500 8.700 4.500 13 0s8.700 4.500 13 0" />
          </svg>
          Strandline
        </a>
        <nav aria-label="Pages">
          {PAGES.map(([path, title]) => (
            <a key={path} href={link(path)} aria-current={page === path ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <div className="top-end">
          <span className={`live ${live.status}`} role="status">
            {status}
          </span>
          <button type="button" className="quiet" onClick={() => choose(next)} title="Light, dark, or as the system has it">
            {themeName}
          </button>
          <a className="quiet docs" href="/docs">
            API
          </a>
        </div>
      </header>
      <Banner live={live} />
      <main id="main" tabIndex={-1}>
        {page === "" && <Overview live={live} theme={theme} />}
        {page === "cluster" && <ClusterPage live={live} />}
        {page === "topics" && <TopicsPage name={route.parts[1]} parameters={route.parameters} />}
        {page === "groups" && <GroupsPage name={route.parts[1]} />}
        {page === "ingest" && <IngestPage />}
        {!PAGES.some(([path]) => path === page) && <p className="muted">There is no such page.</p>}
      </main>
    </>
  );
}
