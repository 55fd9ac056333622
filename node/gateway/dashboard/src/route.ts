// Where the reader is: what stands behind `#`, so that a link leads to the same view.

import { useSyncExternalStore } from "react";

export interface Route {
  /// Parts between slashes, decoded: `#/topics/orders` is ["topics", "orders"].
  parts: string[];
  parameters: URLSearchParams;
}

function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter((part) => part !== "");
  return { parts: parts.map(decode), parameters: new URLSearchParams(search) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

let current = { hash: "", route: parse("") };

export function useRoute(): Route {
  return useSyncExternalStore(
    (listener) => {
      addEventListener("hashchange", listener);
      return () => removeEventListener("hashchange", listener);
    },
    () => {
      if (current.hash !== location.hash) current = { hash: location.hash, route: parse(location.hash) };
      return current.route;
    },
  );
}

export function link(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export function go(hash: string) {
  location.hash = hash;
}
