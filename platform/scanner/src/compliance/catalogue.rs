//! The checks: names, how bad a failure is, and what mends it, in both languages.

use crate::advisories::Severity;

/// One check.
pub struct Definition {
    /// What policies and exceptions name.
    pub id: &'static str,
    pub severity: Severity,
    pub title: &'static str,
    pub remedy: &'static str,
    pub title_zh: &'static str,
    pub remedy_zh: &'static str,
}

/// The check of this name.
pub fn definition(id: &str) -> Option<&'static Definition> {
    CHECKS.iter().find(|definition| definition.id == id)
}

/// Signatures lie beside an image: who has it at hand says whether there are any.
pub(super) const UNSIGNED: &str = "unsigned-image";

pub const CHECKS: &[Definition] = &[
    Definition {
        id: "malware",
        severity: Severity::Critical,
        title: "No file is on the list of malware",
        remedy: "Do not run the image. Find out which build step brought the file, and build anew without it.",
        title_zh: "没有文件出现在恶意软件列表中",
        remedy_zh: "不要运行该镜像。查明是哪个构建步骤带入了该文件,去除后重新构建。",
    },
    Definition {
        id: "secret-in-file",
        severity: Severity::High,
        title: "No layer holds a key, token or password",
        remedy: "Revoke the secret: whoever can pull the image has it. Give it at run time (Secret, mounted file) \
                 or at build time with a secret mount, and build anew.",
        title_zh: "任何层都不包含密钥、令牌或口令",
        remedy_zh: "立即吊销该凭据:任何能拉取镜像的人都已拥有它。改为在运行时(Secret、挂载文件)或构建时以 secret 挂载方式提供,然后重新构建。",
    },
    Definition {
        id: "secret-in-environment",
        severity: Severity::High,
        title: "Environment and history hold no key, token or password",
        remedy: "Revoke the secret, take it out of ENV and ARG, and give it to the container as a Secret.",
        title_zh: "环境变量和构建历史不包含密钥、令牌或口令",
        remedy_zh: "吊销该凭据,从 ENV 和 ARG 中移除,改为以 Secret 方式提供给容器。",
    },
    Definition {
        id: "base-image-end-of-life",
        severity: Severity::High,
        title: "The distribution still gets security updates",
        remedy: "Build on a release that is still maintained.",
        title_zh: "所用发行版仍有安全更新",
        remedy_zh: "改用仍在维护的发行版版本进行构建。",
    },
    Definition {
        id: "runs-as-root",
        severity: Severity::Medium,
        title: "The program does not run as root",
        remedy: "Create a user in the build and name it with USER, by number so that runAsNonRoot can tell.",
        title_zh: "程序不以 root 身份运行",
        remedy_zh: "在构建中创建用户,并用 USER 指定(使用数字 ID,以便 runAsNonRoot 判断)。",
    },
    Definition {
        id: "world-writable-files",
        severity: Severity::Medium,
        title: "No file may be written by everybody",
        remedy: "Take the right away with chmod o-w in the step that creates the file.",
        title_zh: "没有任何人都可写的文件",
        remedy_zh: "在创建该文件的步骤中用 chmod o-w 去除写权限。",
    },
    Definition {
        id: "add-from-url",
        severity: Severity::Medium,
        title: "Nothing is added from a URL",
        remedy: "Fetch in a RUN step that compares a checksum, or use ADD --checksum.",
        title_zh: "没有从 URL 直接 ADD 的内容",
        remedy_zh: "在 RUN 步骤中下载并核对校验和,或使用 ADD --checksum。",
    },
    Definition {
        id: "setuid-files",
        severity: Severity::Low,
        title: "No program runs with more rights than its user",
        remedy: "Take the bit away with chmod a-s, or do not install the program.",
        title_zh: "没有以高于用户权限运行的程序",
        remedy_zh: "用 chmod a-s 去除该位,或不安装该程序。",
    },
    Definition {
        id: "no-health-check",
        severity: Severity::Low,
        title: "The image says how to tell whether it works",
        remedy: "Add HEALTHCHECK. Kubernetes does not read it: give the pod probes as well.",
        title_zh: "镜像声明了健康检查",
        remedy_zh: "添加 HEALTHCHECK。Kubernetes 不读取它:还应为 Pod 配置探针。",
    },
    Definition {
        id: "latest-tag",
        severity: Severity::Low,
        title: "The image is named by a version",
        remedy: "Give it a tag that does not move, such as its version, and deploy by that or by digest.",
        title_zh: "镜像以版本命名",
        remedy_zh: "使用不会变动的标签(例如版本号),并按该标签或摘要部署。",
    },
    Definition {
        id: "privileged-port",
        severity: Severity::Low,
        title: "No port below 1024 is exposed",
        remedy: "Listen on a port from 1024 on, which needs no capability; a Service may map any port to it.",
        title_zh: "没有暴露 1024 以下的端口",
        remedy_zh: "监听 1024 及以上的端口(无需特权);Service 可以将任意端口映射到它。",
    },
    Definition {
        id: "package-manager-cache",
        severity: Severity::Low,
        title: "No layer carries what package managers fetched",
        remedy: "Remove the cache in the step that fills it (rm -rf /var/lib/apt/lists/*, apk add --no-cache, \
                 pip install --no-cache-dir), or use a cache mount.",
        title_zh: "任何层都不携带包管理器的缓存",
        remedy_zh: "在产生缓存的同一步骤中清除(rm -rf /var/lib/apt/lists/*、apk add --no-cache、pip install --no-cache-dir),或使用缓存挂载。",
    },
    Definition {
        id: "shell-in-minimal-image",
        severity: Severity::Low,
        title: "An image without a package manager has no shell either",
        remedy: "Copy only what the program needs; debug with an ephemeral container instead of a shell.",
        title_zh: "没有包管理器的镜像也不带 shell",
        remedy_zh: "只复制程序所需内容;调试时使用临时容器而非内置 shell。",
    },
    Definition {
        id: UNSIGNED,
        severity: Severity::None,
        title: "The image is signed",
        remedy: "Sign it with gantry image sign. What has to be signed to run, signature in an ImagePolicy says.",
        title_zh: "镜像已签名",
        remedy_zh: "使用 gantry image sign 签名。哪些镜像必须签名才能运行,由 ImagePolicy 的 signature 规定。",
    },
];
