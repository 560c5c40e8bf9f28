/* A simulated daemon for tests that need another version or a failure. Accepts any option and implements
 * --version, -t and --probe. Compile-time options:
 *
 *   -DVERSION="9.9.9"   the version that --version prints
 *   -DBROKEN            exits at once with status 1, as a program for another kernel or libc may
 *   -DMUTE              runs, but never listens
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int serve(int listener)
{
    for (;;) {
        char line[256];
        FILE *peer = fdopen(accept(listener, NULL, NULL), "r+");

        setvbuf(peer, NULL, _IONBF, 0);
        fputs("OK TOGGLEDBITS-SOCKPROXY 1 1\n", peer);
        while (fgets(line, sizeof line, peer)) {
            if (!strcmp(line, "BILD\n"))
                fputs("OK 99999\n", peer);
            else if (!strcmp(line, "STOP\n"))
                return fputs("OK STOP\n", peer), 0;
            else
                break;
        }
        fclose(peer);
    }
}

/* Returns 0 if a greeting arrives within 2 s. */
static int probe(struct sockaddr_in where)
{
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int tries = 0; tries < 100; tries++) {
        char byte;
        int sock = socket(AF_INET, SOCK_STREAM, 0);

        if (!connect(sock, (struct sockaddr *)&where, sizeof where) && read(sock, &byte, 1) == 1)
            return 0;
        close(sock);
        usleep(20000);
    }
    return fputs("sockproxyd: no greeting\n", stderr), 1;
}

int main(int argc, char **argv)
{
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(2504) };
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

#ifdef BROKEN
    return fputs("broken: no such kernel\n", stderr), 1;
#endif
    if (argc > 1 && !strcmp(argv[1], "--version"))
        return puts("sockproxyd " VERSION), 0;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "-t"))
            return 0;
        else if (!strncmp(argv[i], "--probe", 7))
            return probe(any);
    signal(SIGPIPE, SIG_IGN);
#ifdef MUTE
    for (;;)
        pause();
#endif
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 16))
        return perror("port 2504"), 2;
    return serve(listener);
}
