// Light or dark: as the system has it, until the reader says otherwise.

import { useState, useSyncExternalStore } from "react";

export type Choice = "system" | "light" | "dark";
const KEY = "strandline-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function stored(): Choice {
  try {
    const choice = localStorage.getItem(KEY);
    return choice === "light" || choice === "dark" ? choice : "system";
  } catch {
    return "system";
  }
}

export function applyTheme(choice: Choice = stored()) {
  document.documentElement.dataset["theme"] = choice;
}

/// The choice, how to change it, and what is in force.
export function useTheme(): [Choice, (choice: Choice) => void, "light" | "dark"] {
  const [choice, setChoice] = useState(stored);
  const systemDark = useSyncExternalStore(
    (listener) => {
      dark.addEventListener("change", listener);
      return () => dark.removeEventListener("change", listener);
    },
    () => dark.matches,
  );
  const choose = (choice: Choice) => {
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
    applyTheme(choice);
    setChoice(choice);
  };
  return [choice, choose, choice === "system" ? (systemDark ? "dark" : "light") : choice];
}
