import { readFileSync } from "node:fs";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

// What is bundled, and whose licence asks to go along.
const bundled = ["react", "react-dom", "scheduler", "uplot", "@fontsource-variable/inter"];

function licences(): Plugin {
  return {
    name: "licences",
    generateBundle() {
      const texts = bundled.map((name) => {
        const text = readFileSync(new URL(`node_modules/${name}/LICENSE`, import.meta.url), "utf8");
        return `${name}\n${"=".repeat(name.length)}\n\n${text.trim()}\n`;
      });
      this.emitFile({ type: "asset", fileName: "assets/licences.txt", source: texts.join("\n\n") });
    },
  };
}

export default defineConfig({
  plugins: [react(), licences()],
  build: {
    target: "es2022",
    // Every file by itself: the page's policy allows no data: fonts and no inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  // `npm run dev` against a cluster that runs: STRANDLINE=http://localhost:8081 npm run dev
  server: {
    proxy: Object.fromEntries(
      ["/v1", "/api", "/get_status", "/consume", "/produce"].map((path) => [
        path,
        process.env["STRANDLINE"] ?? "http://localhost:8080",
      ]),
    ),
  },
});
