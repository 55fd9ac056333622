import "uplot/dist/uPlot.min.css";
import "./style.css";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { connect } from "./live";
import { applyTheme } from "./theme";

applyTheme();
connect();
const root = document.getElementById("root");
if (root !== null) createRoot(root).render(<App />);
